"""What a sweep's command line means for one cell, and what the terminal tells."""

import json
import time
from dataclasses import replace

import cells
import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from latentbench import index, records, store
from latentbench.cells import catalogue, command_line, sweep
from latentbench.cells.ending import finish
from latentbench.cells.lock import Busy
from latentbench.cells.parts import Part, check_settings
from latentbench.cells.progress import display, grouped
from latentbench.cells.sweep import NOTE, without_foreign
from latentbench.errors import BadInput
from latentbench.records import GROUPS, Record, Status
from latentbench.reports import leaderboard


def test_a_setting_reaches_only_the_methods_that_have_it(tmp_path):
    words = ["++method.images=64", "++method.gain=2"]
    config = cells.composed(tmp_path, *words)
    kept_config, kept = without_foreign(config, words)
    assert kept == ["method.gain=2"]
    assert "images" not in kept_config.method
    assert "images" in config.method
    check_settings([Part.of(kept_config.method)])


def test_a_setting_that_no_method_has_stays_and_is_refused(tmp_path):
    words = ["++method.imagse=64"]
    config, kept = without_foreign(cells.composed(tmp_path, *words), words)
    assert kept == ["method.imagse=64"]
    with pytest.raises(BadInput, match="unknown setting of method 'imagse'"):
        check_settings([Part.of(config.method)])


def test_whose_a_setting_is_is_known_without_the_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "FOLDER", tmp_path / "index")
    monkeypatch.setattr(index, "STARTED", time.time() + 60)
    words = ["++method.images=64", "++method.gain=2", "++method.imagse=64"]
    config = cells.composed(tmp_path, *words)
    first = without_foreign(config, words)
    for module, name in ((sweep, "_taken_by"), (catalogue, "sound")):
        monkeypatch.setattr(module, name, lambda _: pytest.fail("a class was asked"))
    assert without_foreign(config, words) == first
    assert first[1] == ["method.gain=2", "method.imagse=64"]


def test_skipped_cells_are_told_by_benchmark_and_reason():
    names = {"benchmark": "swap", "method": "a", "model": "m", "dataset": "d"}
    text = "A has no verb edit, which Swap calls. What fits: method=c"
    one = Record("1", Status.SKIPPED, names, 0, {}, reason=text)
    two = replace(one, names=names | {"method": "b"}, reason=text.replace("A", "B", 1))
    three = replace(one, reason="A requires the space text, which M lacks; it has noise. What fits")
    others = [replace(r, names=r.names | {"model": "n"}) for r in (one, three)]
    assert grouped([one, two, two, three, *others]) == [
        "swap: has no verb edit: a, b on m",
        "swap: requires the space text: a on m, n",
        "swap: has no verb edit: a on n",
    ]


# ---------------------------------------------------------------- the end of a command


@pytest.fixture
def ended(tmp_path):
    """Runs `finish` on jobs that have left their notes, and returns its exit code."""

    def end(*jobs, total=None):
        runs = tmp_path / "runs"
        for k, (method, status) in enumerate(jobs):
            folder = tmp_path / "cells" / method
            names = dict.fromkeys(GROUPS, "acme") | {"method": method}
            if status is not None:
                records.write(Record(method, status, names, 0, {}), folder)
            note = {"id": method, "folder": str(folder), "status": status or Status.OK}
            store.write(runs / str(k) / NOTE, json.dumps(note).encode())
        hydra = {"mode": RunMode.MULTIRUN, "sweep": {"dir": str(runs)}}
        given = {"hydra": hydra, "results": {"dir": str(tmp_path)}, "tracker": None}
        config = OmegaConf.create(given)
        display.start(len(jobs) if total is None else total)
        return finish(config)

    return end


@pytest.mark.parametrize(
    ("jobs", "code"),
    [
        ([("a", Status.OK), ("b", Status.SKIPPED)], 0),
        ([("a", Status.OK), ("b", Status.FAILED)], 1),
        ([("a", Status.SKIPPED)], 0),
        ([("a", None)], 1),  # said that it is ok, and its record is not there
    ],
)
def test_the_exit_code_is_that_of_the_commands_own_cells(ended, tmp_path, jobs, code):
    other = Record("z", Status.FAILED, dict.fromkeys(GROUPS, "acme"), 0, {})
    records.write(other, tmp_path / "cells" / "z")
    assert ended(*jobs) == code
    assert (tmp_path / "leaderboard.md").exists()


def test_a_cell_that_left_no_note_did_not_end(ended, capsys):
    assert ended(("a", Status.OK), total=2) == 1
    assert "1 of 2 cells did not end" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_an_error(ended, tmp_path, capsys):
    (tmp_path / "leaderboard.md").mkdir()
    assert ended(("a", Status.OK)) == 1
    assert "the reports could not be made" in capsys.readouterr().err


def test_a_fault_in_a_report_is_an_error(ended, monkeypatch, capsys):
    def broken(*_):
        raise KeyError("headline")

    monkeypatch.setattr(leaderboard, "write", broken)
    assert ended(("a", Status.OK)) == 1
    told = capsys.readouterr().err
    assert "the reports could not be made" in told
    assert "Traceback" in told


def test_two_commands_of_one_second_have_two_folders():
    names = set()
    for _ in range(50):
        command_line.name_run()
        names.add(command_line.os.environ[command_line.RUN])
    assert len(names) == 50


# ---------------------------------------------------------------- cells of other processes


class Fake:
    """A job whose cell another process computes at first."""

    def __init__(self, log, name, busy):
        self.log, self.name, self.busy = log, name, busy

    def run(self, wait):
        self.log.append((self.name, wait))
        if self.busy and not wait:
            self.busy -= 1
            raise Busy(self.name, "another process")


def test_cells_that_are_busy_are_tried_again_and_waited_for_only_when_all_are(monkeypatch):
    log = []
    jobs = [Fake(log, "a", 9), Fake(log, "b", 1), Fake(log, "c", 9)]
    monkeypatch.setattr(sweep, "_put_off", jobs)
    sweep.come_back()
    assert log == [
        ("a", False), ("b", False), ("c", False), ("a", True),
        ("b", False), ("c", False), ("c", False), ("c", True),
    ]  # fmt: skip
