"""A kept leaderboard is always the one that would be made anew."""

import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from planted_results import Planted

from latentbench import records
from latentbench.paths import place
from latentbench.records import FILE, SAMPLES
from latentbench.reports import as_text, boards, kept, leaderboard


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder of two boards, whose files count as old enough to be remembered."""
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    monkeypatch.setattr(kept, "SETTLED", -60.0)
    planted = Planted(tmp_path / "results")
    for method in ("good", "bad"):
        planted.edits(method, 0.9 if method == "good" else 0.1)
        planted.paths(method, 0.9 if method == "good" else 0.1)
    return planted.results


@pytest.fixture
def made(monkeypatch):
    """Benchmarks of the boards that are made, in turn."""
    titles, real = [], leaderboard.part
    monkeypatch.setattr(
        leaderboard, "part", lambda board: titles.append(board.benchmark) or real(board)
    )
    return titles


def anew(results):
    """Return the leaderboard of the records, made by nothing that is kept."""
    fresh = boards.boards(records.list_records(results))
    return [leaderboard.head(), *(leaderboard.part(board) for board in fresh)]


def cell(results, method, benchmark="edits"):
    return next(
        folder
        for folder, record in records.list_records(results)
        if (record.names["method"], record.names["benchmark"]) == (method, benchmark)
    )


def improve(results, method="bad"):
    """Give a record a better main score."""
    folder = cell(results, method)
    record = records.load(folder)
    scores = dict(record.scores)
    scores[record.main_score] = replace(scores[record.main_score], value=0.123)
    records.write(replace(record, scores=scores), folder)


def parts_kept(results):
    return sorted(path.name for path in kept.FOLDER.glob("*/*.part"))


def test_an_unchanged_folder_is_not_read(results, monkeypatch):
    first = kept.parts(results)
    assert first == anew(results)
    for name in ("read", "read_samples", "list_records"):
        monkeypatch.setattr(records, name, lambda *_: pytest.fail("it was read"))
    assert kept.parts(results) == first


def test_the_pages_are_those_of_the_boards(results, tmp_path):
    found = boards.boards(records.list_records(results))
    pages = as_text.write(kept.parts(results), tmp_path)
    assert [p.read_text() for p in pages] == [
        leaderboard.markdown(found), leaderboard.csv_text(found)
    ]  # fmt: skip
    rows = [row for part in kept.parts(results) for row in json.loads(part.rows)]
    assert rows == list(leaderboard.rows(found))


def test_a_changed_record_makes_its_own_board_anew(results, made):
    kept.parts(results)
    improve(results)
    made.clear()
    changed = kept.parts(results)
    assert made == ["edits"]
    assert "0.123" in changed[1].csv
    assert changed == anew(results)


@pytest.mark.parametrize("left", [1, 0])
def test_a_removed_record_is_on_no_board(results, made, left):
    kept.parts(results)
    for method in ("good", "bad")[left:]:
        shutil.rmtree(cell(results, method))
    made.clear()
    changed = kept.parts(results)
    assert made == ["edits"] * left
    assert len(changed) == 2 + left
    assert changed == anew(results)


def test_a_new_record_joins_its_board(results, made):
    kept.parts(results)
    Planted(results).edits("third", 0.5)
    made.clear()
    changed = kept.parts(results)
    assert made == ["edits"]
    assert "third" in changed[1].markdown
    assert changed == anew(results)


def test_another_setting_is_another_board(results, made):
    kept.parts(results)
    Planted(results).edits("good", 0.9, overrides=("benchmark.n=12",))
    made.clear()
    changed = kept.parts(results)
    assert made == ["edits n=12"]
    assert changed == anew(results)


def test_another_seed_joins_its_row(results):
    kept.parts(results)
    Planted(results).edits("good", 0.9, seed=1)
    changed = kept.parts(results)
    assert "good (2 seeds)" in changed[1].markdown
    assert changed == anew(results)


def test_other_code_makes_every_board_anew(results, made, monkeypatch, caplog):
    before = kept.parts(results)
    made.clear()
    real = kept.Sources

    class Other(real):
        def __init__(self, places):
            super().__init__(places)
            self.digest = "of other sources"

    monkeypatch.setattr(kept, "Sources", Other)
    monkeypatch.setattr(leaderboard, "LEGEND", "Another legend")
    after = kept.parts(results)
    assert made == ["edits", "paths"]
    assert after[0].markdown.endswith("Another legend")
    assert after[1:] == before[1:]
    assert not caplog.text
    assert len([*kept.FOLDER.glob("*/*")]) == 5  # none of the old code


def test_nothing_is_kept_by_code_that_was_changed_meanwhile(results, monkeypatch):
    monkeypatch.setattr(kept.Sources, "as_imported", lambda self: False)
    assert kept.parts(results) == anew(results)
    assert not kept.FOLDER.exists()


def test_a_cell_whose_samples_were_changed_is_left_out(results, caplog):
    kept.parts(results)
    path = cell(results, "bad") / SAMPLES
    path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):  # each time it is said again
        caplog.clear()
        changed = kept.parts(results)
        assert "is left out: samples.parquet is not the file" in caplog.text
        assert "bad" not in changed[1].csv
    assert changed == anew(results)


def test_samples_count_where_no_seal_is_over_them(results, caplog):
    folder = cell(results, "bad")
    text = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**text, "schema": records.UNSEALED, "files": {}}))
    kept.parts(results)
    shutil.copy(cell(results, "good") / SAMPLES, folder / SAMPLES)
    caplog.clear()
    changed = kept.parts(results)
    assert changed == anew(results)
    assert "1 of 4 records have no seal" in caplog.text
    caplog.clear()
    assert kept.parts(results) == changed
    assert "1 of 4 records have no seal" in caplog.text


def test_a_change_that_the_times_hide_shows_by_its_inode(results):
    import os

    kept.parts(results)
    path = cell(results, "bad") / FILE
    facts = path.stat()
    improve(results)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert kept.parts(results) == anew(results)


def test_files_of_this_moment_are_not_trusted(results, monkeypatch):
    monkeypatch.setattr(kept, "SETTLED", 60.0)
    before = kept.parts(results)
    read = []
    real = records.read
    monkeypatch.setattr(records, "read", lambda folder: read.append(folder) or real(folder))
    assert kept.parts(results) == before
    assert len(read) == 4


def test_a_board_whose_records_change_while_it_is_made_is_not_kept(results, monkeypatch):
    real = leaderboard.part

    def part(board):
        if board.benchmark == "edits":
            improve(results)
        return real(board)

    monkeypatch.setattr(leaderboard, "part", part)
    kept.parts(results)
    assert len(parts_kept(results)) == 2  # the head and the other board
    monkeypatch.setattr(leaderboard, "part", real)
    assert kept.parts(results) == anew(results)


def test_a_damaged_or_lost_part_is_made_again(results, caplog):
    before = kept.parts(results)
    one, two, *_ = sorted(kept.FOLDER.glob("*/*.part"))
    one.write_bytes(one.read_bytes()[:-3])
    two.unlink()
    assert kept.parts(results) == before
    assert "is damaged" in caplog.text
    assert len(parts_kept(results)) == 3


def test_what_is_no_more_is_removed(results, tmp_path):
    kept.parts(results)
    first = parts_kept(results)
    improve(results)
    kept.parts(results)
    assert len(parts_kept(results)) == len(first) == 3
    assert parts_kept(results) != first
    shutil.rmtree(results)
    Planted(tmp_path / "other").edits("good")
    kept.parts(tmp_path / "other")
    assert [p.read_text() for p in kept.FOLDER.glob("*/results.txt")] == [str(tmp_path / "other")]


def read_boards(results):
    return kept.boards(results, records.list_records(results))


def findings_kept(results):
    return sorted(path.name for path in kept.FOLDER.glob("*/*.findings"))


@pytest.fixture
def sampled(monkeypatch):
    """Folders whose samples a board has read, in turn."""
    folders, real = [], records.read_samples
    monkeypatch.setattr(
        boards, "read_samples", lambda folder: folders.append(folder) or real(folder)
    )
    return folders


def test_boards_that_are_kept_say_all_that_they_said(results, sampled):
    Planted(results).edits("good", 0.9, seed=1)  # a mean over seeds
    first = read_boards(results)
    assert sampled
    sampled.clear()
    again = read_boards(results)
    assert not sampled
    assert [board.findings for board in again] == [board.findings for board in first]
    assert [leaderboard.part(board) for board in again] == anew(results)[1:]
    for one, other in zip(first, again, strict=True):
        for figure in one.figures:
            pairs = one.rankings[figure].pairs if figure in one.rankings else {}
            assert other.rankings[figure].pairs == pairs if pairs else True
            mine, theirs = (
                [row.values(figure) for row in board.rows] for board in (one, other)
            )  # reads the samples after all
            assert [None if s is None else s.to_dict() for s in mine] == [
                None if s is None else s.to_dict() for s in theirs
            ]


def test_only_boards_whose_records_have_changed_read_samples(results, sampled):
    read_boards(results)
    before = findings_kept(results)
    improve(results)
    sampled.clear()
    changed = read_boards(results)
    assert {folder.name for folder in sampled} == {
        cell(results, method).name for method in ("good", "bad")
    }
    assert [leaderboard.part(board) for board in changed] == anew(results)[1:]
    assert len(findings_kept(results)) == len(before) == 2  # those of the old record are removed
    assert len({*before} & {*findings_kept(results)}) == 1


def test_a_leaderboard_takes_what_the_boards_of_a_sweep_have_found(results, sampled):
    read_boards(results)
    sampled.clear()
    assert kept.parts(results) == anew(results)
    assert len(sampled) == 4  # by `anew` alone


def test_what_newer_code_has_found_is_not_taken(results, sampled, monkeypatch):
    """As at the end of a sweep whose checkout was changed meanwhile, and used since."""
    read_boards(results)
    before = findings_kept(results)
    sampled.clear()
    monkeypatch.setattr(kept.Sources, "as_imported", lambda self: False)
    read_boards(results)
    assert len({*sampled}) == 4
    assert findings_kept(results) == before


@pytest.mark.parametrize("seal", ["none", "of other samples"])
def test_what_no_seal_is_over_is_not_kept(results, sampled, monkeypatch, seal):
    found = records.list_records(results)
    folder = cell(results, "bad")
    if seal == "none":
        text = json.loads((folder / FILE).read_text())
        (folder / FILE).write_text(json.dumps({**text, "schema": records.UNSEALED, "files": {}}))
        found = records.list_records(results)
    else:  # changed right after the record was read
        shutil.copy(cell(results, "good") / SAMPLES, folder / SAMPLES)
    kept.boards(results, found)
    assert len(findings_kept(results)) == 1  # of the other board


def test_a_record_that_moves_while_its_board_is_made_is_on_one(results, monkeypatch):
    kept.parts(results)
    improve(results)
    real, moved = kept.Kept._parts_of, []

    def parts_of(self, cells):
        if not moved:
            moved.append(cell(results, "good"))
            record = records.load(moved[0])
            records.write(replace(record, overrides=("benchmark.n=12",)), moved[0])
        return real(self, cells)

    monkeypatch.setattr(kept.Kept, "_parts_of", parts_of)
    found = kept.parts(results)
    assert [part.csv.count(moved[0].name) > 0 for part in found] == [False, False, True, False]
    assert found == anew(results)


def test_several_at_once_each_see_the_whole_leaderboard(results):
    kept.parts(results)
    improve(results)
    right = anew(results)
    with ThreadPoolExecutor(4) as pool:
        assert all(found == right for found in pool.map(kept.parts, [results] * 8))


def test_a_cache_that_cannot_be_written_costs_no_leaderboard(results, monkeypatch, caplog):
    (results / "file").write_text("")
    monkeypatch.setattr(kept, "FOLDER", results / "file")
    with caplog.at_level(logging.WARNING):
        assert kept.parts(results) == anew(results)
    assert "cannot write to" in caplog.text


def test_records_at_an_address_are_read_each_time(results):
    address = place("memory://kept/results", "results.dir")
    for path in results.glob("cells/*/*"):
        (address / path.relative_to(results).as_posix()).write_bytes(path.read_bytes())
    assert kept.parts(address) == anew(results)
    assert not kept.FOLDER.exists()


def test_no_record_gives_the_head_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "kept")
    (tmp_path / "cells" / "begun").mkdir(parents=True)
    assert kept.parts(tmp_path) == [leaderboard.head()]
    assert kept.parts(tmp_path / "nowhere") == [leaderboard.head()]


def test_a_folder_whose_name_is_not_utf8_is_kept_as_well(results, made):
    odd = results.parent / os.fsdecode(b"results\xff")
    results.rename(odd)
    right = anew(odd)
    made.clear()
    assert kept.parts(odd) == right
    assert kept.parts(odd) == right
    assert made == ["edits", "paths"]
    (place,) = kept.FOLDER.glob("*/results.txt")
    place.write_bytes(b"\xff damaged")
    Planted(results).edits("good")
    kept.parts(results)
    assert not place.exists()
