import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from latentbench.records import SAMPLES, Record, ScoreEntry, Status
from latentbench.reports import leaderboard
from latentbench.reports.boards import boards

NOWHERE = Path("/nowhere")


def record(method, value, model="m1", **changes):
    names = {"benchmark": "recon", "method": method, "model": model, "dataset": "faces"}
    score = {
        "ssim": ScoreEntry(0.5, 64),
        "psnr": ScoreEntry(value, 64, value - 1, value + 1, "", unit="dB", higher_is_better=True),
        "psnr/part": ScoreEntry(1.0, 32),
    }
    blank = Record(f"id-{method}-{model}", Status.OK, names, 0, {}, main_score="psnr", scores=score)
    return replace(blank, **changes)


GOOD, BEST, OTHER = record("good", 20.0), record("best", 30.0), record("good", 40.0, "m2")
SKIPPED = record("odd", 0.0, status=Status.SKIPPED, scores={}, reason="no verb | invert")
FAILED = record("bad", 0.0, status=Status.FAILED, scores={}, reason="NotFinite: <script>")
ALL = [(NOWHERE, r) for r in (GOOD, BEST, OTHER, SKIPPED, FAILED)]


def made(*some):
    return boards([(NOWHERE, r) for r in some])


def test_one_board_per_model_with_rows_from_best_to_worst():
    first, second = boards(ALL)
    assert (first.title, second.title) == ("recon · m1, faces", "recon · m2, faces")
    assert [row.first.names["method"] for row in first.rows] == ["best", "good"]
    assert {r.names["method"] for r in first.rest} == {"odd", "bad"}


def test_lower_is_better_turns_the_order_around():
    entry = {"psnr": ScoreEntry(1.0, 9, higher_is_better=False)}
    worse = {"psnr": ScoreEntry(2.0, 9, higher_is_better=False)}
    (board,) = made(replace(GOOD, scores=worse), replace(BEST, scores=entry))
    assert [row.first.names["method"] for row in board.rows] == ["best", "good"]


def test_a_cell_without_the_main_figure_stands_last():
    lacking = record("none", 0.0, scores={"psnr": ScoreEntry(None, 0, higher_is_better=True)})
    assert made(lacking, GOOD)[0].rows[-1].first is lacking


def test_the_main_score_leads_and_group_scores_are_left_out():
    board = boards(ALL)[0]
    assert board.columns == ["psnr", "ssim"]
    assert leaderboard.header(board, "psnr") == "psnr (dB) ↑"


def test_markdown_has_values_intervals_and_reasons():
    text = leaderboard.markdown(boards(ALL))
    assert "| best | 1–2 a | **30 [29, 31]** | 0.5 | 0 |" in text
    assert "no verb \\| invert" in text
    assert text.index("best |") < text.index("good |")


def test_rows_of_two_versions_are_told_apart_and_not_compared(tmp_path):
    """As they lie in a folder whose newer cells were measured by a metric that was mended."""

    def cell(name, method, psnr, metric):
        table = {"id": [f"test/{k}" for k in range(20)], "group": "g", "output": 0}
        values = psnr + np.linspace(0, 0.1, 20) ** (1 + psnr / 10)
        folder = tmp_path / name
        folder.mkdir()
        pd.DataFrame(table | {"headline": True, "psnr": values}).to_parquet(folder / SAMPLES)
        config = {"method": {"_target_": method}}
        versions = {"metrics.PSNR": metric, method: int(psnr)}
        made = record(method, psnr, id=name, config=config, versions=versions)
        return folder, made

    cells = [cell("a", "good", 2.0, 1), cell("b", "good", 3.0, 1), cell("c", "new", 9.0, 2)]
    (board,) = boards(cells)
    assert board.names == ["new", "good [b]", "good [a]"]
    assert set(board.rankings["psnr"].pairs) == {(1, 2)}
    (line,) = leaderboard.warnings(board)
    assert (
        "different metrics.PSNR" in line and "version 1: good [b], good [a]; version 2: new" in line
    )
    text = leaderboard.markdown([board])
    assert "| good [b] |" in text and "Run the older cells again" in text
    (alike,) = boards(cells[:2])
    assert not leaderboard.warnings(alike)


def test_settings_that_were_changed_make_another_table_or_row():
    other = replace(GOOD, overrides=("benchmark.n=8", "method.steps=5"))
    assert [board.benchmark for board in made(GOOD, other)] == ["recon", "recon n=8"]
    assert "good steps=5" in leaderboard.markdown(made(other))


def test_the_terminal_shows_lists_among_the_settings():
    odd = replace(GOOD, overrides=("benchmark.attributes=[hat+]", "method.types=[x]"))
    console = Console(width=200, record=True, file=io.StringIO())
    leaderboard.show(made(odd), console)
    text = console.export_text()
    assert "recon attributes=[hat+]" in text and "good types=[x]" in text and "[19, 21]" in text


def test_csv_has_every_figure_and_every_cell():
    rows = list(csv.DictReader(io.StringIO(leaderboard.csv_text(boards(ALL)))))
    assert len(rows) == 3 * 2 + 2
    best = next(r for r in rows if r["method"] == "best" and r["figure"] == "psnr")
    assert (best["value"], best["low"], best["main"]) == ("30.0", "29.0", "True")
    assert {r["reason"] for r in rows} == {"", SKIPPED.reason, FAILED.reason}


def test_no_text_becomes_a_tag_or_a_formula():
    reasons = ("=cmd|' /C calc'!A0", "+1+cmd", "@SUM(1)", "a\nb | <script>alert(1)</script>")
    rest = [
        record(f"<b>{k}", 0.0, status=Status.FAILED, scores={}, reason=reason)
        for k, reason in enumerate(reasons)
    ]
    below = replace(GOOD, scores=GOOD.scores | {"psnr": ScoreEntry(-2.5, 9, -3.0, -2.0)})
    some = made(below, *rest)
    text = leaderboard.markdown(some)
    assert "<script>" not in text and "<b>" not in text
    assert "a b \\| &lt;script&gt;alert(1)&lt;/script&gt;" in text
    rows = list(csv.DictReader(io.StringIO(leaderboard.csv_text(some))))
    found = {row["reason"] for row in rows if row["reason"]}
    assert found == {f"'{reasons[0]}", f"'{reasons[1]}", f"'{reasons[2]}", reasons[3]}
    assert {"-2.5"} == {row["value"] for row in rows if row["figure"] == "psnr"}
    assert {"-2.5"} == {row["seed_values"] for row in rows if row["figure"] == "psnr"}


def test_it_is_a_function_of_the_records_alone(tmp_path):
    slower = [(f, replace(r, seconds={"run": 9.0}, created="2030-01-01")) for f, r in ALL]
    for a, b in zip(
        leaderboard.write(boards(ALL), tmp_path / "a"),
        leaderboard.write(boards(slower), tmp_path / "b"),
        strict=True,
    ):
        assert a.read_bytes() == b.read_bytes()


def test_no_record_gives_an_empty_board():
    assert boards([]) == []
    assert leaderboard.markdown([]).startswith("# Leaderboard")


# ---------------------------------------------------------------- tests, ranks, seeds, judges


class Planted:
    """Writes cells with planted values per image."""

    def __init__(self, folder):
        self.folder, self.found = folder, []

    def cell(
        self, method, seed=0, reached=None, replicates=(), effect=None, ids=None, groups="hat+",
        **figures,
    ):  # fmt: skip
        """Add a cell; each figure is ``[n]`` values, lower is better.

        Given `effect`, all figures but the first count on its rows alone.
        """
        n = len(next(iter(figures.values())))
        ids = [f"test/{k}" for k in range(n)] if ids is None else ids
        frame = pd.DataFrame({"id": ids, "group": groups, "output": 0})
        frame["headline"] = True if reached is None else reached
        counts = frame["headline"].to_numpy()
        frame = (
            frame.assign(**figures) if effect is None else frame.assign(effect=effect, **figures)
        )
        main = next(iter(figures))
        at = {name: "headline" if effect is None or name == main else "effect" for name in figures}
        entries = {
            name: ScoreEntry(
                float(np.mean(values[counts])),
                n,
                replicates=replicates,
                higher_is_better=False,
                at=at[name],
            )
            for name, values in figures.items()
        }
        where = self.folder / f"{method}-{seed}"
        where.mkdir(parents=True)
        if not replicates:
            frame.to_parquet(where / SAMPLES)
        else:
            frame.drop(columns=list(figures)).to_parquet(where / SAMPLES)
        cell = record(method, 0.0, id=where.name, seed=seed, scores=entries, main_score=main)
        self.found.append((where, cell))

    @property
    def board(self):
        (board,) = boards(self.found)
        return board

    def row(self, method):
        board = self.board
        k = next(k for k, r in enumerate(board.rows) if r.first.names["method"] == method)
        return board, k


@pytest.fixture
def planted(tmp_path):
    return Planted(tmp_path)


def draw(n, seed=0, spread=1.0):
    return np.random.default_rng(seed).normal(size=n) * spread


def test_a_small_difference_on_the_same_images_is_found(planted):
    """By their intervals alone the two methods overlap almost wholly."""
    images = draw(30)
    planted.cell("a", leak_zoo1=images)
    planted.cell("b", leak_zoo1=images + 0.1 + draw(30, 1, 0.05))
    board, k = planted.row("b")
    assert leaderboard.mark(board, k, "leak_zoo1") == "worse"
    assert board.ranking.ranks == {0: (1, 1), 1: (2, 2)}
    assert "1 pair of methods on 30 images" in leaderboard.notes(board)[0]
    text = leaderboard.markdown([board])
    assert "| a | 1 a |" in text and "| b | 2 b |" in text and " \\*" in text


def test_noise_is_not_ranked(planted):
    for k, name in enumerate("abc"):
        planted.cell(name, leak_zoo1=draw(30, k))
    board = planted.board
    assert set(board.ranking.ranks.values()) == {(1, 3)}
    marks = [leaderboard.mark(board, k, "leak_zoo1") for k in range(3)]
    assert marks == ["best", "tied", "tied"]


def test_float_rounding_is_no_difference(planted):
    """Two exact reconstructions, and one that is not exact."""
    planted.cell("a", leak_zoo1=np.full(30, 1e-13))
    planted.cell("b", leak_zoo1=np.full(30, 9e-13))
    planted.cell("c", leak_zoo1=draw(30) ** 2)
    board, k = planted.row("b")
    assert leaderboard.mark(board, k, "leak_zoo1") == "tied"


def test_giving_up_on_hard_images_wins_nothing(planted):
    """Its mean is of easy images: by far the smallest, yet worse on each of them."""
    hard = np.arange(30) >= 15
    planted.cell("honest", leak_zoo1=1.0 + 9.0 * hard + draw(30, 0, 0.1))
    planted.cell("quitter", reached=~hard, leak_zoo1=1.0 + 9.0 * hard + 0.5 + draw(30, 1, 0.1))
    planted.cell("also honest", leak_zoo1=1.2 + 9.0 * hard + draw(30, 2, 0.1))
    board = planted.board
    assert leaderboard.who(board.rows[2], "")[0] == "quitter †"
    marks = [leaderboard.mark(board, k, "leak_zoo1") for k in range(3)]
    assert marks == ["best", "worse", ""] and 2 not in board.ranking.ranks


def test_missing_the_matched_effect_takes_no_rank_from_a_main_score_that_counts_elsewhere(planted):
    """Its figures at matched effect are left out of the comparison, its main score is not."""
    near, far = draw(30, 0, 0.1), 1 + draw(30, 1, 0.1)
    planted.cell("coarse", effect=np.arange(30) < 10, edit_error_zoo1=near, leak_zoo1=near)
    planted.cell("fine", effect=np.full(30, True), edit_error_zoo1=far, leak_zoo1=far)
    board, k = planted.row("coarse")
    assert k == 0 and board.ranking.ranks == {0: (1, 1), 1: (2, 2)}
    assert board.rankings["leak_zoo1"].order == [1]
    assert leaderboard.who(board.rows[0], "")[0] == "coarse †"
    assert "The matched effect was missed by coarse on hat+." in leaderboard.notes(board)
    rows = list(csv.DictReader(io.StringIO(leaderboard.csv_text([board]))))
    shares = {(r["method"], r["figure"]): float(r["coverage"]) for r in rows}
    assert shares["coarse", "edit_error_zoo1"] == 1
    assert shares["coarse", "leak_zoo1"] == pytest.approx(1 / 3, abs=1e-3)


def test_sets_are_compared_when_they_hold_the_same_images(planted):
    values = np.full(40, 1.0)
    planted.cell("a", kd_zoo1=values, replicates=tuple(1.0 + draw(10, 0, 0.01)))
    planted.cell("b", kd_zoo1=values + 1, replicates=tuple(2.0 + draw(10, 0, 0.01)))
    board, k = planted.row("b")
    assert leaderboard.mark(board, k, "kd_zoo1") == "worse"
    planted.cell("c", kd_zoo1=values + 1, reached=np.arange(40) > 5, replicates=(2.0,) * 10)
    board, k = planted.row("c")
    assert leaderboard.mark(board, k, "kd_zoo1") == ""


class TestSeveralEditsPerImage:
    """Rows are edits; images are the units."""

    def test_shown_and_tested_difference_are_one_figure(self, planted):
        """Half of the images have one edit, half have three: means over rows and images differ."""
        ids = [f"test/{k}" for k in range(24) for _ in range(1 + 2 * (k % 2))]
        groups = [f"edit{k}" for _ in range(12) for k in (0, 0, 1, 2)]
        hard = np.array([k % 4 > 0 for k in range(48)])
        noise = [draw(48, k, 0.01) for k in range(2)]
        planted.cell("a", ids=ids, groups=groups, leak_zoo1=1.0 + 0.5 * hard + noise[0])
        planted.cell("b", ids=ids, groups=groups, leak_zoo1=1.2 + 0.3 * hard + noise[1])
        board = planted.board
        (found,) = board.ranking.pairs.values()
        shown = [row.scores["leak_zoo1"].value for row in board.rows]
        assert found.difference == pytest.approx(shown[0] - shown[1])
        assert found.values == pytest.approx(shown) and found.n == 24

    def test_rows_of_one_image_do_not_count_as_images(self, planted):
        own = [np.repeat(draw(10, k), 20) for k in range(2)]
        ids, groups = np.repeat([f"test/{k}" for k in range(10)], 20), [*range(20)] * 10
        for k, name in enumerate("ab"):
            planted.cell(name, ids=ids, groups=list(map(str, groups)), leak_zoo1=own[k] + 0.7 * k)
        board = planted.board
        assert not board.ranking.apart(0, 1)

    def test_a_difference_that_does_not_matter_is_no_rank(self, planted):
        planted.cell("a", leak_zoo1=1 + draw(30, 0, 1e-5))
        planted.cell("b", leak_zoo1=1.0005 + draw(30, 1, 1e-5))
        board = planted.board
        assert board.smallest("leak_zoo1") == pytest.approx(0.01, rel=0.01)
        assert leaderboard.mark(board, 1, "leak_zoo1") == "tied"


class TestSeeds:
    def test_cells_that_differ_in_their_seed_only_are_one_row(self, planted):
        for seed in range(3):
            planted.cell("a", seed, leak_zoo1=draw(20) + seed)
            planted.cell("b", seed, leak_zoo1=draw(20) + seed + 5 + draw(20, seed, 0.1))
        board = planted.board
        assert [leaderboard.who(row, "")[0] for row in board.rows] == ["a (3 seeds)", "b (3 seeds)"]
        entry = board.rows[0].scores["leak_zoo1"]
        assert entry.value == pytest.approx(draw(20).mean() + 1)
        assert "by seed: 0: " in entry.note and "the seeds'" in entry.note
        assert entry.high - entry.low > 4  # by the images of one seed alone it would be 1
        assert leaderboard.mark(board, 1, "leak_zoo1") == "worse"
        rows = list(csv.DictReader(io.StringIO(leaderboard.csv_text([board]))))
        assert rows[0]["seeds"] == "0 1 2" and len(rows[0]["seed_values"].split()) == 3
        assert float(rows[0]["seed_share"]) > 0.8

    def test_trap_a_lucky_seed_is_no_difference(self, planted):
        """In one of three seeds b is far better on every image."""
        for seed in range(3):
            planted.cell("a", seed, leak_zoo1=draw(50, seed, 0.1))
            planted.cell("b", seed, leak_zoo1=draw(50, 10 + seed, 0.1) - 3.0 * (seed == 1))
        board, k = planted.row("a")
        assert leaderboard.mark(board, k, "leak_zoo1") == "tied"

    def test_other_settings_are_other_rows(self, planted):
        planted.cell("a", 0, leak_zoo1=draw(20))
        folder, cell = planted.found[0]
        planted.found.append((folder, replace(cell, seed=1, overrides=("method.steps=5",))))
        assert len(planted.board.rows) == 2


class TestJudges:
    def plant(self, planted, shifts):
        for k, shift in enumerate(shifts):
            noise = draw(30, k, 0.01)
            planted.cell(f"m{k}", leak_zoo1=k + noise, leak_zoo2=shift + noise)
        return planted.board

    def test_judges_that_agree_give_no_warning_and_one_column(self, planted):
        board = self.plant(planted, (0, 1, 2, 3))
        assert board.columns == ["leak_zoo1"]
        assert board.agreements[0].tau == 1 and leaderboard.warnings(board) == []
        assert "tau of 4 methods' order: leak_zoo1 1.00" in leaderboard.notes(board)[1]

    def test_judges_that_disagree_give_a_warning_everywhere(self, planted):
        board = self.plant(planted, (3, 2, 1, 0))
        (line,) = leaderboard.warnings(board)
        assert "order is m3, m2, m1, m0 (tau -1.00)" in line
        assert "tell apart: 6, of them the other way round: 6" in line
        console = Console(width=140, record=True, file=io.StringIO())
        leaderboard.show([board], console)
        shown = console.export_text(), leaderboard.markdown([board])
        assert all("judges disagree" in text for text in shown)
        assert "leak_zoo2: " in leaderboard.says(board, 0, "leak_zoo1")

    def test_a_judge_that_reads_the_same_everywhere_has_no_tau(self, planted):
        for k in range(3):
            planted.cell(f"m{k}", leak_zoo1=draw(30, k), leak_zoo2=np.ones(30))
        board = planted.board
        assert board.agreements[0].tau is None and "tau undefined" in leaderboard.warnings(board)[0]


@pytest.mark.slow
@pytest.mark.parametrize("arms", [2, 5])
def test_arms_of_one_law_are_told_apart_no_more_often_than_stated(tmp_path, arms):
    """A/A: 100 boards of methods that are the same but for noise; 5% may show any difference."""
    wrong = 0
    for trial in range(100):
        planted = Planted(tmp_path / str(trial))
        for arm in range(arms):
            images, own = draw(16, trial), draw(16, 1000 * trial + arm + 1)
            planted.cell(f"m{arm}", leak_zoo1=np.exp(images) + np.exp(own))
        ranking = planted.board.ranking
        wrong += any(ranking.apart(i, j) for i, j in ranking.pairs)
    assert wrong <= 10


class TestNotes:
    def test_a_missing_interval_has_its_reason_below_the_table(self):
        few = ScoreEntry(20.0, 4, note="no interval: 4 images, at least 8 needed; of 3 edits")
        (board,) = made(replace(GOOD, scores={"psnr": few}))
        assert "No interval: psnr (4 images, at least 8 needed)." in leaderboard.notes(board)
        assert "at least 8 needed)" in leaderboard.markdown([board])

    def test_too_few_images_for_so_many_pairs_are_told_how_many_it_takes(self, planted):
        for k in range(8):
            planted.cell(f"m{k}", leak_zoo1=draw(9, k))
        line = leaderboard.notes(planted.board)[0]
        assert "28 pairs of methods on 9 images; so few images can tell nothing apart" in line
        assert "at least 11 can" in line


def test_a_command_shows_its_own_cells_with_their_places_on_the_whole_board():
    board = boards(ALL)[0]
    own, other = board.rows[1].first, board.rows[0].first
    console = Console(width=140, record=True, file=io.StringIO())
    leaderboard.show([board], console, {own.id})
    shown = console.export_text()
    assert own.label("method") in shown and leaderboard.places(board, 1) in shown
    assert f"{other.label('method')} " not in shown
