"""A cell that several workers compute together: each batch once, the bytes of one worker alone."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict

import cells
import pytest
from acme.parts import Brighten, Shift

from latentbench.cells import sharing
from latentbench.cells.beginning import begin
from latentbench.cells.cell import run_cell
from latentbench.cells.loading import load
from latentbench.cells.lock import NAME, Busy
from latentbench.cells.plan import plan
from latentbench.cells.shelf import Shelf
from latentbench.cells.working_folder import _name as batch_name
from latentbench.errors import BadInput
from latentbench.processes import Process, current
from latentbench.records import Record, Status

SMALL = ("model=faces_ddpm", "dataset=faces", "model.steps=2", "runtime.batch_size=2")
REAL = {
    "generation": ("benchmark=generation", "method=plain", "metric=[vendi]", "benchmark.n=6"),
    "attribute_editing": (
        "benchmark=attribute_editing_quick", "method=noise_direction", "metric=[psnr]",
        "benchmark.n=5", "benchmark.calibration_n=3",
    ),
    "interpolation": (
        "benchmark=interpolation_quick", "method=slerp", "metric=[istd]", "benchmark.n=5",
    ),
}  # fmt: skip
FIGURES = ("id", "status", "scores", "setup", "failed_samples", "asked", "files")


def left(results):
    """What a cell leaves: its files, and its record's figures in place of the record."""
    (folder,) = (results / "cells").iterdir()
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    record = json.loads(found.pop("record.json"))
    return {name: record[name] for name in FIGURES} | found


def together(results, shards, *words, names=cells.NAMES):
    """Compute one cell by as many threads as it has shards; return who made the record."""
    words = (*words, f"runtime.shards={shards}")
    configs = [cells.composed(results, *words) for _ in range(shards)]  # hydra is not for threads
    with ThreadPoolExecutor(shards) as pool:
        found = list(pool.map(lambda config: run_cell(config, names), configs))
    assert all(record.status is Status.OK for record, _ in found), found[0][0].traceback
    return sorted(new for _, new in found)


@pytest.fixture
def calls(monkeypatch):
    """What was called, and by which thread."""
    made = []

    def counted(cls, name, seconds=0.0):
        real = getattr(cls, name)

        def call(*arguments):
            made.append((name, threading.get_ident()))
            time.sleep(seconds)  # so that each worker comes to some of it
            return real(*arguments)

        monkeypatch.setattr(cls, name, call)

    counted(Shift, "fit", 0.1)
    counted(Brighten, "setup", 0.1)
    counted(Brighten, "run", 0.05)
    return made


@pytest.mark.parametrize("shards", [2, 3])
def test_workers_share_the_batches_and_leave_the_bytes_of_one(tmp_path, calls, shards):
    together(tmp_path / "alone", 1)
    alone, calls[:] = sorted(name for name, _ in calls), []
    assert alone == ["fit", *["run"] * 6, "setup"]
    assert together(tmp_path / "shared", shards) == [False] * (shards - 1) + [True]
    assert sorted(name for name, _ in calls) == alone
    assert len({thread for name, thread in calls if name == "run"}) > 1
    assert left(tmp_path / "shared") == left(tmp_path / "alone")


def begun(results, *words):
    """A cell that is set up, what runs its batches, and the batches."""
    config = cells.composed(results, "runtime.shards=2", *words)
    shelf = Shelf.of(config)
    cell = plan(config, shelf, Record("", Status.FAILED, cells.NAMES, 0, {}))
    return shelf, cell, *begin(cell, load(cell))[:2]


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", REAL)
def test_shards_of_the_benchmarks_leave_the_bytes_of_one(tmp_path, benchmark):
    """Workers one after the other, each of which finds the others at their batches."""
    words = (*SMALL, *REAL[benchmark])
    names = dict(word.split("=") for word in words if word.split("=")[0] in cells.NAMES)
    for shards in (1, 2, 3):
        results = tmp_path / str(shards)
        for worker in range(shards - 1):
            shelf, cell, runner, works = begun(results, *words)
            others = [work for k, work in enumerate(works) if k % shards != worker]
            with ExitStack() as stack, pytest.raises(Busy):
                for work in others:
                    stack.enter_context(runner.store.held(work, False, print))
                sharing.share(cell, shelf, wait=False)
            assert all(runner.store.has(work) for work in works[worker::shards])
        together(results, 1, *words, names=names)
    assert left(tmp_path / "2") == left(tmp_path / "3") == left(tmp_path / "1")


def test_a_killed_workers_batch_is_taken_over_and_its_finished_ones_stay(tmp_path, calls, capsys):
    _, cell, runner, works = begun(tmp_path / "killed")
    runner.finished(works[0])
    gone = {"owner": asdict(Process(current().host, 2**22 + 1)), "beat": "0"}
    lock = cell.store.folder / "batches" / batch_name(works[1]) / NAME
    lock.parent.mkdir(parents=True)
    lock.write_text(json.dumps(gone))
    together(tmp_path / "killed", 2)
    assert [name for name, _ in calls].count("run") == 6
    assert "has ended; going on with it" in capsys.readouterr().err
    together(tmp_path / "alone", 1)
    assert left(tmp_path / "killed") == left(tmp_path / "alone")


def test_who_does_not_wait_leaves_the_batches_that_others_make(tmp_path, calls):
    shelf, cell, runner, works = begun(tmp_path)
    with runner.store.held(works[2], False, print), pytest.raises(Busy):
        sharing.share(cell, shelf, wait=False)
    assert [runner.store.has(work) for work in works] == [True, True, False, True, True, True]


def test_more_shards_than_batches_are_told_once(tmp_path, capsys):
    together(tmp_path, 8)
    assert capsys.readouterr().err.count("so that 2 workers find none") == 1


def test_a_batch_that_breaks_fails_the_cell_once(tmp_path, calls):
    words = ("runtime.shards=2", "++method.misbehave=raise")
    first, new = cells.run(tmp_path, *words)
    assert (first.status, new) == (Status.FAILED, True)
    assert "this method always breaks" in first.reason
    assert cells.run(tmp_path, *words) == (first, False)
    assert [name for name, _ in calls].count("run") == 1


def test_shards_of_what_is_always_begun_anew_are_refused(tmp_path):
    with pytest.raises(BadInput, match="leave one of the two out"):
        cells.run(tmp_path, "runtime.shards=2", "results.overwrite=always")
