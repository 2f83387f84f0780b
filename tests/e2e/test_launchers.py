"""The same cells under every launcher: the same pages, byte for byte, whoever is killed."""

import os
import signal
import time
from collections import Counter

import pytest
from commands import ACME, run, scores, start

from latentbench.cells.activity import Run

SWEEP = ("-m", *ACME, "model=acme,acme_double", "method=acme", "seed=0,1", "benchmark.n=8")
PAGES = ("leaderboard.md", "leaderboard.csv")
CORES = ("launch=cores", "launch.workers=2")
RAY = ("launch=ray", "launch.workers=2")
SLURM = ("launch=slurm", "launch.cluster=local", "launch.cells_per_job=2", "launch.gpus=0")
DEBUG = ("launch=slurm", "launch.cluster=debug", "launch.cells_per_job=3", "launch.gpus=0")
ENGINE = {"ray": "ray", "slurm": "submitit"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What an undisturbed sweep in one process shows."""
    results = tmp_path_factory.mktemp("local")
    done = run(results, *SWEEP)
    assert done.returncode == 0, done.stderr
    return read(results)


def read(results) -> list[bytes]:
    return [(results / name).read_bytes() for name in PAGES]


def needs_engine(words):
    name = ENGINE.get(words[0].partition("=")[2])
    if name is not None:
        pytest.importorskip(name)


@pytest.mark.parametrize("words", [
    pytest.param(CORES, id="cores", marks=pytest.mark.slow),
    pytest.param(RAY, id="ray", marks=pytest.mark.slow),
    pytest.param(SLURM, id="slurm", marks=pytest.mark.slow),
    pytest.param(DEBUG, id="debug"),
])  # fmt: skip
def test_every_launcher_gives_the_same_pages(tmp_path, pages, words):
    needs_engine(words)
    log = tmp_path / "log"
    done = run(tmp_path / "there", *SWEEP, *words, log=log)
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / "there") == pages
    assert set(Counter(log.read_text().splitlines()).values()) == {4}  # each cell's batches, once
    assert done.stderr.count(" ok ") == 4
    assert " on cpu" in done.stderr


def test_two_commands_on_one_folder_compute_each_cell_once(tmp_path):
    there, log = tmp_path / "there", tmp_path / "log"
    slow = ("++method.seconds=0.1",)
    both = [start(there, *SWEEP, *slow, log=log) for _ in range(2)]
    assert [one.wait().returncode for one in both] == [0, 0]
    assert set(Counter(log.read_text().splitlines()).values()) == {4}
    told = "".join(one.err.read_text() for one in both)
    assert "is being computed by process" in told


def running(results):
    """The command's run as its logs have it, once one of its cells is at its batches."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        runs = [Run.read(path.parent) for path in results.glob("runs/*/activity")]
        for run_ in runs:
            if any(one.phase == "batches" and one.alive() for one in run_.doing.values()):
                return run_
        time.sleep(0.05)
    raise TimeoutError("no cell was begun")


@pytest.mark.slow
@pytest.mark.parametrize("words", [CORES, RAY, SLURM], ids=["cores", "ray", "slurm"])
def test_a_killed_worker_costs_nothing_but_time(tmp_path, words):
    """Under cores and ray another goes on; under slurm the same command does, given again."""
    needs_engine(words)
    sweep = (*SWEEP, "++method.seconds=0.3")
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert run(calm, *sweep).returncode == 0
    process = start(rough, *sweep, *words)
    victims = [one for one in running(rough).doing.values() if one.phase == "batches"]
    os.kill(victims[0].owner.pid, signal.SIGKILL)
    done = process.wait()
    if words is SLURM:
        assert done.returncode == 1
        assert "ended without a result" in done.stderr
        done = run(rough, *sweep, *words)
    assert done.returncode == 0, done.stderr
    assert scores(rough) == scores(calm)
    assert read(rough) == read(calm)


ONE = ("-m", *ACME, "model=acme", "method=acme", "benchmark.n=24", "++method.seconds=0.5")
SHARDS = "runtime.shards=2"


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), CORES, RAY, SLURM], ids=["local", "cores", "ray", "slurm"])
def test_workers_share_one_cell(tmp_path, words):
    if words:
        needs_engine(words)
    log = tmp_path / "log"
    alone = run(tmp_path / "alone", *ONE)
    done = run(tmp_path / "shared", *ONE, *words, SHARDS, log=log)
    assert (alone.returncode, done.returncode) == (0, 0), alone.stderr + done.stderr
    assert set(Counter(log.read_text().splitlines()).values()) == {1}  # setup and 12 batches
    assert done.stderr.count(" ok ") == 1
    assert scores(tmp_path / "shared") == scores(tmp_path / "alone")
    assert read(tmp_path / "shared") == read(tmp_path / "alone")
    (path,) = (tmp_path / "shared").glob("runs/*/activity")
    begun = [p for p in path.iterdir() if '"begun"' in p.read_text()]
    assert len(begun) == (2 if words else 1)


@pytest.mark.slow
@pytest.mark.parametrize("words", [CORES, RAY, SLURM], ids=["cores", "ray", "slurm"])
def test_a_killed_shard_costs_its_batch(tmp_path, words):
    needs_engine(words)
    assert run(tmp_path / "alone", *ONE).returncode == 0
    process = start(tmp_path / "shared", *ONE, *words, SHARDS)
    victims = [one for one in running(tmp_path / "shared").doing.values() if one.phase == "batches"]
    os.kill(victims[0].owner.pid, signal.SIGKILL)
    done = process.wait()
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path / "shared") == scores(tmp_path / "alone")
    assert read(tmp_path / "shared") == read(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("words", [CORES, RAY, SLURM], ids=["cores", "ray", "slurm"])
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_nothing_runs_on_after_its_command(tmp_path, words, sign):
    """And the same command goes on to the same pages."""
    needs_engine(words)
    sweep = (*SWEEP, "++method.seconds=0.3")
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    assert run(calm, *sweep).returncode == 0
    process = start(rough, *sweep, *words)
    workers = running(rough).doing.values()
    os.kill(process.process.pid, sign)
    done = process.wait()
    assert done.returncode == (130 if sign is signal.SIGINT else -sign)
    deadline = time.monotonic() + 60
    while any(one.alive() for one in workers) and words is not SLURM:
        assert time.monotonic() < deadline, "a worker runs on"
        time.sleep(0.1)
    assert run(rough, *sweep, *words).returncode == 0
    assert read(rough) == read(calm)
