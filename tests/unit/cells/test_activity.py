"""What processes log of their work, and what another process reads of it."""

import json
from dataclasses import asdict, replace

import pytest

from latentbench.cells import activity
from latentbench.cells.activity import Log, Logs, Run, device_in_words, running
from latentbench.cli import main
from latentbench.processes import current


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "one"


@pytest.fixture
def log(folder):
    log = Log(folder)
    log.write("started", total=5, command="runner.py -m sweep=demo")
    log.write("finished", status="ok")
    log.write("begun", cell="slerp on faces", device="cuda:3")
    log.write("phase", words="batches")
    log.progress(2, 7)
    return log


def test_a_running_command_is_told_with_counts_and_cells(log, tmp_path, capsys):
    assert main(["status", "--results", str(tmp_path)]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.startswith("runner.py -m sweep=demo: 1 ok, 1 running, 3 ahead of 5, ")
    assert f":{current().pid} cuda:3 slerp on faces, batches 2/7, " in line


def test_a_command_that_has_stopped_or_died_is_not_told(log, folder, tmp_path, capsys):
    (path,) = folder.glob("activity/*")
    gone = json.dumps(asdict(replace(current(), started="1")))
    alive = json.dumps(asdict(current()))
    whole = path.read_text()
    path.write_text(whole.replace(alive, gone))
    assert not running(tmp_path)
    path.write_text(whole)
    assert running(tmp_path)
    log.write("stopped")
    assert main(["status", "--results", str(tmp_path)]) == 0
    assert "nothing runs that computes into" in capsys.readouterr().out


def test_a_line_is_read_once_and_only_when_it_is_whole(folder, log):
    logs = Logs(folder)
    assert len(list(logs.new())) == 6
    with log.path.open("a") as file:
        file.write('{"what": "told", ')
    assert not list(logs.new())
    with log.path.open("a") as file:
        file.write('"time": 1}\n{damaged}\n')
    assert [event["what"] for _, event in logs.new()] == ["told"]


def test_progress_is_not_logged_at_every_step(folder, log, monkeypatch):
    for k in range(100):
        log.progress(k, 100)
    assert sum(event["what"] == "progress" for _, event in Logs(folder).new()) == 1
    monkeypatch.setattr(activity, "PAUSE", -1)
    log.progress(99, 100)
    assert next(iter(Run.read(folder).doing.values())).done == 99


@pytest.mark.parametrize(
    ("device", "cards", "words"),
    [("cuda", "3", "cuda:3"), ("cuda", "0,1", "cuda"), ("cuda", "", "cuda"), ("cpu", "3", "cpu")],
)
def test_a_card_is_told_as_the_machine_numbers_it(monkeypatch, device, cards, words):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards)
    assert device_in_words(device) == words


def test_a_log_that_cannot_be_written_harms_nobody(tmp_path):
    (tmp_path / "file").write_text("")
    Log(tmp_path / "file").write("begun", cell="", device="")
