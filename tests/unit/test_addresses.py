"""Results and cache at an address of an object store: what a folder gives, as far as one can."""

import json
import threading
import time
import uuid
from dataclasses import asdict
from pathlib import Path

import cells
import pytest
from omegaconf import OmegaConf

from latentbench import plugins, records, store
from latentbench.cells import lock
from latentbench.cells.lock import Busy, held
from latentbench.cli import main
from latentbench.errors import BadInput
from latentbench.paths import CHECKOUT, place, user_path
from latentbench.processes import Process, current
from latentbench.records import Status


@pytest.fixture
def address():
    return place(f"memory://{uuid.uuid4().hex}/results", "results.dir")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "STALE", 0.3)
    monkeypatch.setattr(lock, "POLL", 0.01)


def test_a_cell_at_an_address_is_that_of_a_folder(tmp_path, address):
    local, _ = cells.run(tmp_path)
    record, new = cells.run(address)
    assert (record.status, new) == (Status.OK, True), record.traceback
    assert (record.id, record.scores, record.files) == (local.id, local.scores, local.files)
    assert cells.run(address) == (record, False)
    there = {path.name for path in (address / "cells" / record.id).iterdir()}
    assert there == {path.name for path in (tmp_path / "cells" / record.id).iterdir()}
    assert list((address / "cache" / "fit").glob("*/*.sealed"))
    assert main(["leaderboard", "--results", str(address)]) == 0
    assert record.names["method"] in (address / "leaderboard.md").read_text()


def test_finished_batches_at_an_address_stay(address, monkeypatch):
    from acme.parts import Brighten

    real, made = Brighten.run, []

    def run(self, work, bench, setup):
        made.append(work)
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(self, work, bench, setup)

    monkeypatch.setattr(Brighten, "run", run)
    with pytest.raises(KeyboardInterrupt):
        cells.run(address)
    record, _ = cells.run(address)
    assert record.status is Status.OK
    assert len(made) == 7  # six batches, one of them twice
    assert not (address / "cells" / record.id / "partial").exists()


def test_a_damaged_object_is_removed_and_made_again(address, caplog):
    path = address / "x.sealed"
    store.write_sealed(path, "key", b"body")
    assert store.read_sealed(path, "key") == b"body"
    path.write_bytes(path.read_bytes()[:-1])
    assert store.read_sealed(path, "key") is None
    assert not path.exists()
    assert str(path) in caplog.text


def test_one_process_creates_an_object(address):
    store.create(address / "x", b"mine")
    with pytest.raises(FileExistsError):
        store.create(address / "x", b"yours")
    assert (address / "x").read_bytes() == b"mine"


def test_errors_of_a_stores_own_are_the_systems(address, monkeypatch):
    def pipe_file(*arguments, **options):
        raise RuntimeError("403: not yours")

    monkeypatch.setattr(address.fs, "pipe_file", pipe_file)
    with pytest.raises(OSError, match="RuntimeError: 403: not yours"):
        store.write(address / "x", b"")


def test_a_lock_at_an_address_beats_and_goes(address, quick):
    with held(address, False, print):
        first = (address / lock.NAME).read_bytes()
        with pytest.raises(Busy, match=f"process {current().pid}"), held(address, False, print):
            pass
        time.sleep(0.2)
        assert json.loads(first)["beat"] < json.loads((address / lock.NAME).read_bytes())["beat"]
    assert not (address / lock.NAME).exists()


def test_a_lock_at_an_address_without_a_beat_is_taken_over(address, quick):
    far = {"owner": asdict(Process("elsewhere", 1)), "beat": "0"}
    store.write(address / lock.NAME, json.dumps(far).encode())
    told = []
    with held(address, True, told.append):
        assert b"elsewhere" not in (address / lock.NAME).read_bytes()
    assert "has ended; going on with it" in told[-1]


def test_an_owner_that_lost_its_lock_at_an_address_leaves_it_alone(address, quick):
    with held(address, False, print):
        store.write(address / lock.NAME, b"another's")
        time.sleep(0.1)
        assert (address / lock.NAME).read_bytes() == b"another's"
    assert (address / lock.NAME).exists()


def test_workers_at_an_address_share_a_cell(address):
    configs = [cells.composed(address, "runtime.shards=2") for _ in range(2)]
    from latentbench.cells.cell import run_cell

    found = []
    threads = [
        threading.Thread(target=lambda c=config: found.append(run_cell(c, cells.NAMES)))
        for config in configs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(new for _, new in found) == [False, True]
    assert [record.id for _, record in records.list_records(address)] == [found[0][0].id]


def test_a_local_address_is_a_folder(tmp_path):
    assert place(f"file://{tmp_path}/a", "results.dir") == tmp_path / "a"
    assert isinstance(place(f"file://{tmp_path}/a", "results.dir"), Path)


def test_logs_of_a_command_stay_on_this_machine(address):
    given = {"results": {"dir": str(address)}, "run": "${on_this_machine:${results.dir}}/runs"}
    plugins.register()
    run = Path(OmegaConf.create(given).run)
    assert run.parent.parent == CHECKOUT / "results"


@pytest.mark.parametrize(("given", "says"), [
    ("nowhere://bucket", "results.dir=nowhere://bucket cannot be used"),
    ("s3://bucket/results", "s3fs"),
])  # fmt: skip
def test_an_address_that_cannot_be_used_is_refused(given, says):
    with pytest.raises(BadInput, match=says):
        place(given, "results.dir")


def test_images_do_not_lie_at_an_address():
    with pytest.raises(BadInput, match=r"dataset.path=s3://b is an address; only results.dir"):
        user_path("s3://b", "dataset.path")
