"""A cell is computed by one process at a time; a lock whose owner is gone is taken over."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import cells
import pytest
from acme.parts import Brighten

from latentbench.cells import lock
from latentbench.cells.lock import Busy, held
from latentbench.processes import Process, current
from latentbench.records import Status


def owned(folder, owner, beat=0):
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"owner": asdict(owner), "beat": f"{beat:012d}"})
    (folder / lock.NAME).write_text(text)


@pytest.fixture
def gone():
    words = [sys.executable, "-c", "import os; print(os.getpid())"]
    done = subprocess.run(words, capture_output=True, check=True)
    return Process(current().host, int(done.stdout))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "STALE", 0.3)
    monkeypatch.setattr(lock, "POLL", 0.01)


def test_a_lock_is_there_inside_the_block_alone(tmp_path):
    with held(tmp_path, False, print):
        assert json.loads((tmp_path / lock.NAME).read_text())["owner"] == asdict(current())
    assert not list(tmp_path.iterdir())


def test_who_does_not_wait_is_told_the_owner(tmp_path):
    with held(tmp_path, False, print):
        with pytest.raises(Busy, match=f"is being computed by process {current().pid}"):
            with held(tmp_path, False, print):
                pass
        assert (tmp_path / lock.NAME).exists()


def test_who_waits_says_so_once_and_goes_on_when_the_lock_is_free(tmp_path, quick):
    told, inside = [], threading.Event()

    def other():
        with held(tmp_path, True, told.append):
            inside.set()

    with held(tmp_path, True, told.append):
        thread = threading.Thread(target=other)
        thread.start()
        assert not inside.wait(0.5)  # longer than a lock without a heartbeat lasts
    thread.join()
    assert inside.is_set()
    assert len(told) == 1
    assert "waiting for it" in told[0]


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_a_lock_whose_owner_is_gone_is_taken_over_and_told(tmp_path, quick, gone, content):
    owned(tmp_path, gone)
    if content is not None:
        (tmp_path / lock.NAME).write_bytes(content)
    told = []
    with held(tmp_path, True, told.append):
        pass
    assert "has ended; going on with it" in told[-1]
    assert not list(tmp_path.iterdir())


def test_another_machines_lock_holds_as_long_as_its_heart_beats(tmp_path, quick):
    far, stop = Process("elsewhere", 1), threading.Event()

    def beat():
        for k in range(10**6):
            if stop.is_set():
                return
            owned(tmp_path, far, k)
            time.sleep(0.02)

    thread = threading.Thread(target=beat)
    thread.start()
    start = time.monotonic()
    threading.Timer(0.6, stop.set).start()
    with held(tmp_path, True, print):
        assert time.monotonic() - start > 0.8
    thread.join()


def test_many_who_find_one_stale_lock_work_one_after_the_other(tmp_path, quick, gone, monkeypatch):
    monkeypatch.setattr(lock, "STALE", 60.0)  # a crowded machine may hold a heartbeat up
    owned(tmp_path, gone)
    inside, most = [], []

    def work(_):
        with held(tmp_path, True, lambda words: None):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    assert most == [1] * 16
    assert not list(tmp_path.iterdir())


def test_an_owner_that_lost_its_lock_leaves_the_others_alone(tmp_path):
    with held(tmp_path, False, print):
        (tmp_path / lock.NAME).unlink()
        owned(tmp_path, replace(current(), host="elsewhere"))
    assert (tmp_path / lock.NAME).exists()


def test_two_processes_on_one_cell_compute_it_once(tmp_path, monkeypatch):
    real, made = Brighten.run, []

    def run(self, work, bench, setup):
        made.append(work)
        time.sleep(0.1)
        return real(self, work, bench, setup)

    monkeypatch.setattr(Brighten, "run", run)
    cells.composed(tmp_path)  # hydra's globals are not for threads
    configs = [cells.composed(tmp_path) for _ in range(2)]
    from latentbench.cells.cell import run_cell

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda config: run_cell(config, cells.NAMES), configs))
    assert sorted(new for _, new in found) == [False, True]
    assert all(record.status is Status.OK for record, _ in found)
    assert len(made) == 6


def test_a_finished_record_is_not_overwritten_by_one_who_fails_later(tmp_path, monkeypatch):
    """Its lock was taken over while it was suspended; the other process has finished."""
    real = Brighten.run

    def run(self, work, bench, setup):
        monkeypatch.setattr(Brighten, "run", real)
        (lock_file,) = tmp_path.glob("cells/*/lock")
        lock_file.unlink()
        assert cells.run(tmp_path)[0].status is Status.OK
        raise FileNotFoundError("the other one has tidied up")

    monkeypatch.setattr(Brighten, "run", run)
    record, new = cells.run(tmp_path)
    assert (record.status, new) == (Status.OK, False)


@pytest.mark.parametrize("what", ["cell", "lock"])
def test_what_nobody_will_take_away_is_not_waited_for(tmp_path, caplog, what):
    place = tmp_path / "cell"
    (place / lock.NAME).mkdir(parents=True) if what == "lock" else place.touch()
    with held(place, False, print):
        pass
    assert f"no lock at {place / lock.NAME}" in caplog.text


def test_a_link_to_nothing_in_the_place_of_a_lock_is_taken_over(tmp_path, quick):
    (tmp_path / lock.NAME).symlink_to(tmp_path / "nothing")
    told = []
    with held(tmp_path, True, told.append):
        assert not (tmp_path / lock.NAME).is_symlink()
    assert "going on with it" in told[-1]


def test_the_beat_of_a_lock_that_may_not_be_read_shows_in_its_time(tmp_path, monkeypatch):
    """Another user's; root may read all, so the refusal is planted."""
    path = tmp_path / "lock"
    path.write_bytes(b"{}")

    def refused(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refused)
    os.utime(path, ns=(1, 1))
    first = lock._read(path)
    os.utime(path, ns=(2, 2))
    assert first and lock._read(path) != first
