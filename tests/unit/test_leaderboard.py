import csv
import io
from dataclasses import replace

from latentbench import leaderboard
from latentbench.records import Record, ScoreEntry, Status


def record(method, value, model="m1", **changes):
    names = {"benchmark": "recon", "method": method, "model": model, "dataset": "faces"}
    score = {
        "ssim": ScoreEntry(0.5, 64),
        "psnr": ScoreEntry(value, 64, value - 1, value + 1, "", "dB", True),
        "psnr/part": ScoreEntry(1.0, 32),
    }
    blank = Record(f"id-{method}-{model}", Status.OK, names, 0, {}, main_score="psnr", scores=score)
    return replace(blank, **changes)


GOOD, BEST, OTHER = record("good", 20.0), record("best", 30.0), record("good", 40.0, "m2")
SKIPPED = record("odd", 0.0, status=Status.SKIPPED, scores={}, reason="no verb | invert")
FAILED = record("bad", 0.0, status=Status.FAILED, scores={}, reason="NotFinite: <script>")
ALL = [GOOD, BEST, OTHER, SKIPPED, FAILED]


def test_rows_stand_by_model_and_then_from_best_to_worst():
    (board,) = leaderboard.boards(ALL)
    assert [(r.names["model"], r.names["method"]) for r in board.ok] == [
        ("m1", "best"),
        ("m1", "good"),
        ("m2", "good"),
    ]
    assert {r.names["method"] for r in board.rest} == {"odd", "bad"}


def test_lower_is_better_turns_the_order_around():
    entry = {"psnr": ScoreEntry(1.0, 9, higher_is_better=False)}
    worse = {"psnr": ScoreEntry(2.0, 9, higher_is_better=False)}
    pair = [replace(GOOD, scores=worse), replace(BEST, scores=entry)]
    assert [r.names["method"] for r in leaderboard.boards(pair)[0].ok] == ["best", "good"]


def test_a_cell_without_the_main_figure_stands_last():
    lacking = record("none", 0.0, scores={"psnr": ScoreEntry(None, 0, higher_is_better=True)})
    assert leaderboard.boards([lacking, GOOD])[0].ok[-1] is lacking


def test_the_main_score_leads_and_group_scores_are_left_out():
    (board,) = leaderboard.boards(ALL)
    assert list(board.columns) == ["psnr", "ssim"]
    assert board.header("psnr") == "psnr (dB) ↑"


def test_markdown_has_values_intervals_and_reasons():
    text = leaderboard.markdown(ALL)
    assert "| m1 | best | 30 [29, 31] | 0.5 | 0 |" in text
    assert "no verb \\| invert" in text
    assert text.index("best") < text.index("good")


def test_settings_that_were_changed_make_another_table_or_row():
    other = replace(GOOD, overrides=("benchmark.n=8", "method.steps=5"))
    names = [board.benchmark for board in leaderboard.boards([GOOD, other])]
    assert names == ["recon", "recon n=8"]
    assert "good steps=5" in leaderboard.markdown([other])


def test_csv_has_every_figure_and_every_cell():
    rows = list(csv.DictReader(io.StringIO(leaderboard.csv_text(ALL))))
    assert len(rows) == 3 * 3 + 2
    best = next(r for r in rows if r["method"] == "best" and r["figure"] == "psnr")
    assert (best["value"], best["low"], best["main"]) == ("30.0", "29.0", "True")
    assert {r["reason"] for r in rows} == {"", SKIPPED.reason, FAILED.reason}


def test_the_page_needs_no_network_and_runs_no_foreign_text():
    text = leaderboard.page(ALL)
    assert "http" not in text
    assert "<script>\nfor" in text
    assert text.count("<script>") == 1
    assert "NotFinite: &lt;script&gt;" in text
    assert 'data-key="30.0"' in text
    assert "{{" not in text


def test_it_is_a_function_of_the_records_alone(tmp_path):
    slower = [replace(r, seconds={"run": 9.0}, created="2030-01-01") for r in ALL]
    for a, b in zip(
        leaderboard.write(ALL, tmp_path / "a"),
        leaderboard.write(slower, tmp_path / "b"),
        strict=True,
    ):
        assert a.read_bytes() == b.read_bytes()


def test_no_record_gives_an_empty_board():
    assert leaderboard.boards([]) == []
    assert leaderboard.markdown([]).startswith("# Leaderboard")
