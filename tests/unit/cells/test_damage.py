"""What is damaged, full, or fails in an odd way costs time and no result."""

import errno
import json
import shutil

import cells
import pytest
from acme.parts import Brighten, Shift

from latentbench import records, store
from latentbench.processes import current
from latentbench.records import Status


def scores(record):
    return record.to_json().split('"scores": ')[1].split('"main_score"')[0]


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return cells.run(tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """Results of a cell that was interrupted after five of its six batches."""
    real, done = Brighten.run, []

    def run(self, work, bench, setup):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(work)
        return real(self, work, bench, setup)

    with monkeypatch.context() as patch:
        patch.setattr(Brighten, "run", run)
        with pytest.raises(KeyboardInterrupt):
            cells.run(tmp_path)
    return tmp_path


def stored(results):
    batches = sorted(results.glob("cells/*/partial/*.sealed"))
    return [path for path in batches if path.name != "setup.sealed"]


@pytest.fixture
def runs(monkeypatch):
    """Counts the batches that are made."""
    real, made = Brighten.run, []

    def run(self, work, bench, setup):
        made.append(work)
        return real(self, work, bench, setup)

    monkeypatch.setattr(Brighten, "run", run)
    return made


# ---------------------------------------------------------------- unfinished batches


@pytest.mark.parametrize("how", ["bit", "cut", "emptied", "swapped", "deleted"])
def test_a_damaged_batch_is_made_again(cut, whole, runs, caplog, how):
    first, second = stored(cut)[:2]
    body = bytearray(first.read_bytes())
    body[len(body) // 2] ^= 4
    if how == "deleted":
        first.unlink()
    else:
        choices = {"bit": body, "cut": body[:100], "emptied": b"", "swapped": second.read_bytes()}
        first.write_bytes(choices[how])
    record, _ = cells.run(cut)
    assert record.status is Status.OK, record.traceback
    assert scores(record) == scores(whole)
    assert len(runs) == 2  # the sixth and the damaged one
    assert ("is made again" in caplog.text) == (how != "deleted")


def test_a_batch_of_another_cell_is_not_taken(cut, tmp_path_factory, whole, runs):
    other = tmp_path_factory.mktemp("other")
    stored(cut)[0].write_bytes(b"")  # leaves five batches to make
    record, _ = cells.run(cut, "method.gain=2")
    del runs[:]
    target = other / "cells" / whole.id / "partial"
    shutil.copytree(stored(cut)[0].parent, target)
    for path in target.iterdir():
        path.write_bytes(path.read_bytes().replace(whole.id.encode(), record.id.encode()))
    assert cells.run(other, "method.gain=2")[0].status is Status.OK
    assert len(runs) == 6


def test_a_damaged_setup_is_made_again(cut, whole, caplog):
    (path,) = cut.glob("cells/*/partial/setup.sealed")
    path.write_bytes(path.read_bytes().replace(b"2.0", b"9.0"))
    record, _ = cells.run(cut)
    assert scores(record) == scores(whole)
    assert "setup.sealed is damaged" in caplog.text


def test_a_batch_damaged_before_scoring_is_made_again(tmp_path, whole, runs, monkeypatch):
    from latentbench.cells import cell

    real = cell.score

    def score(*arguments):
        stored(tmp_path)[0].write_bytes(b"gone")
        return real(*arguments)

    monkeypatch.setattr(cell, "score", score)
    assert scores(cells.run(tmp_path)[0]) == scores(whole)
    assert len(runs) == 7


def test_setup_values_that_are_no_json_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Brighten, "setup", lambda self, bench: {"strengths": [1.0, float("nan")]})
    record, _ = cells.run(tmp_path)
    assert record.status is Status.FAILED
    assert "setup.values.strengths.1 = nan" in record.reason


# ---------------------------------------------------------------- records


@pytest.mark.parametrize("name", ["record.json", "samples.parquet", "images.parquet", "grid.webp"])
@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_a_damaged_cell_is_not_shown_and_is_made_again(tmp_path, whole, name, how):
    record, _ = cells.run(tmp_path)
    path = tmp_path / "cells" / record.id / name
    path.write_bytes(path.read_bytes()[:-9]) if how == "cut" else path.unlink()
    assert records.list_records(tmp_path) == []
    again, new = cells.run(tmp_path)
    assert new
    assert scores(again) == scores(whole)
    assert len(records.list_records(tmp_path)) == 1


def test_another_cells_record_in_its_place_is_made_again(tmp_path):
    one, _ = cells.run(tmp_path)
    two, _ = cells.run(tmp_path, "seed=1")
    places = [tmp_path / "cells" / record.id for record in (one, two)]
    shutil.rmtree(places[0])
    shutil.copytree(places[1], places[0])
    assert [record.id for _, record in records.list_records(tmp_path)] == [two.id]
    again, new = cells.run(tmp_path)
    assert new
    assert scores(again) == scores(one)


# ---------------------------------------------------------------- no room on disk


@pytest.mark.parametrize("what", ["cache", "partial"])
def test_a_full_disk_costs_no_result(tmp_path, whole, monkeypatch, caplog, what):
    real = store.write

    def write(path, data):
        return no_room() if what in path.parts else real(path, data)

    monkeypatch.setattr(store, "write", write)
    record, _ = cells.run(tmp_path)
    assert record.status is Status.OK, record.traceback
    assert scores(record) == scores(whole)
    assert caplog.text.count("No space left on device") == 1


def test_no_room_for_the_record_is_reported_and_the_next_run_only_scores(
    tmp_path, whole, runs, monkeypatch
):
    real = store.write
    with monkeypatch.context() as patch:
        patch.setattr(
            store, "write", lambda p, d: no_room() if p.name == records.FILE else real(p, d)
        )
        record, new = cells.run(tmp_path)
    assert new
    assert record.status is Status.FAILED
    assert "No space left on device" in record.reason
    assert "run the same command again" in record.reason
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("lock*"))
    again, _ = cells.run(tmp_path)
    assert scores(again) == scores(whole)
    assert len(runs) == 6


def test_no_room_for_the_table_fails_the_cell_until_there_is(tmp_path, whole, runs, monkeypatch):
    real = store.write
    with monkeypatch.context() as patch:
        patch.setattr(
            store, "write", lambda p, d: no_room() if p.name == records.SAMPLES else real(p, d)
        )
        record, _ = cells.run(tmp_path)
    assert record.status is Status.FAILED
    assert record.may_pass
    again, _ = cells.run(tmp_path)
    assert scores(again) == scores(whole)
    assert len(runs) == 6


# ---------------------------------------------------------------- odd errors


@pytest.mark.parametrize("raised", [SystemExit(0), SystemExit("bye"), GeneratorExit()])
def test_whatever_a_method_raises_is_a_failed_cell(tmp_path, monkeypatch, raised):
    def edit(*_):
        raise raised

    monkeypatch.setattr(Shift, "edit", edit)
    record, _ = cells.run(tmp_path)
    assert record.status is Status.FAILED
    assert record.reason.startswith(type(raised).__name__)
    assert records.read(tmp_path / "cells" / record.id).reason == record.reason


def test_an_exit_under_fail_fast_is_no_success(tmp_path, monkeypatch):
    def edit(*_):
        raise SystemExit(0)

    monkeypatch.setattr(Shift, "edit", edit)
    with pytest.raises(Exception, match="SystemExit: 0"):
        cells.run(tmp_path, "runtime.fail_fast=true")


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("\udcff"),
        ValueError(float("nan"), b"\xff"),
        Wordless(),
        ValueError("a\0b\x1b[1m"),
    ],
)
def test_an_error_of_any_text_becomes_a_record(tmp_path, monkeypatch, raised):
    def edit(*_):
        raise raised

    monkeypatch.setattr(Shift, "edit", edit)
    record, _ = cells.run(tmp_path)
    assert record.status is Status.FAILED
    found = records.read(tmp_path / "cells" / record.id)
    found.to_json().encode()
    assert found.reason.startswith(type(raised).__name__)


@pytest.mark.parametrize("value", ["nan", "inf", "[1,nan]", "{a: nan}"])
def test_a_setting_that_json_cannot_hold_fails_with_a_record(tmp_path, value):
    record, _ = cells.run(tmp_path, f"+dataset.colour={value}")
    assert record.status is Status.FAILED
    assert "unknown setting of dataset 'colour'" in record.reason
    assert records.read(tmp_path / "cells" / record.id) is not None


# ---------------------------------------------------------------- due again


def test_what_only_the_runtime_caused_is_due_under_another_runtime(tmp_path):
    record, _ = cells.run(tmp_path, "runtime.execution.vae_slicing=true")
    assert record.status is Status.FAILED
    assert not cells.run(tmp_path, "runtime.execution.vae_slicing=true")[1]
    again, new = cells.run(tmp_path)
    assert new
    assert again.status is Status.OK


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory."), SystemExit(3), ImportError("no x"),
     ConnectionError("away")],
)  # fmt: skip
def test_what_may_pass_is_due_again(tmp_path, monkeypatch, error):
    def run(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Brighten, "run", run)
        assert cells.run(tmp_path)[0].status is Status.FAILED
    record, new = cells.run(tmp_path)
    assert new
    assert record.status is Status.OK


def test_a_smaller_share_of_failures_makes_a_tolerant_record_due(tmp_path):
    odd = "method.misbehave=not_finite"
    tolerant, _ = cells.run(tmp_path, odd, "runtime.max_failed_share=.9")
    assert (tolerant.status, tolerant.asked, len(tolerant.failed_samples)) == (Status.OK, 20, 2)
    assert not cells.run(tmp_path, odd, "runtime.max_failed_share=.1")[1]
    strict, new = cells.run(tmp_path, odd)
    assert new
    assert strict.status is Status.FAILED
    again, new = cells.run(tmp_path, odd, "runtime.max_failed_share=.9")
    assert new
    assert scores(again) == scores(tolerant)


# ---------------------------------------------------------------- what a kill leaves


def test_what_was_left_right_after_the_record_is_tidied_up(tmp_path):
    record, _ = cells.run(tmp_path)
    folder = tmp_path / "cells" / record.id
    store.write(folder / "partial" / "x.sealed", b"")
    gone = {"host": current().host, "pid": 4194304, "started": "1"}
    (folder / "lock").write_text(json.dumps({"owner": gone}))
    assert not cells.run(tmp_path)[1]
    assert not (folder / "partial").exists()
    assert not (folder / "lock").exists()
