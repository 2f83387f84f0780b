"""What the launchers decide: order, packs, shares, and what the batch script of Slurm says."""

import copy
import doctest
import operator
import os
import sys
import threading
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from joblib.externals.loky import ProcessPoolExecutor
from omegaconf import OmegaConf

from hydra_plugins.workers import _jobs, cores
from hydra_plugins.workers._jobs import Job, WorkersLauncher
from hydra_plugins.workers._queue import Queue
from hydra_plugins.workers.cores import CoresLauncher, _stay
from hydra_plugins.workers.slurm import SlurmLauncher
from hydra_plugins.workers.sweeper import KeptRepository
from latentbench import plugins

ROOT = Path(__file__).resolve().parents[3]


def sweep(*models):
    return [[f"model={model}", f"seed={k}"] for k, model in enumerate(models)]


def kinds(jobs):
    return [job.overrides[0] for job in jobs]


class Plain(WorkersLauncher):
    def launch(self, job_overrides, initial_job_idx):
        raise NotImplementedError


def test_jobs_that_belong_together_are_neighbours_and_keep_their_numbers():
    jobs = Plain(together=["model"]).jobs(sweep("a", "b", "a", "b"), 10)
    assert kinds(jobs) == ["model=a", "model=a", "model=b", "model=b"]
    assert [job.number for job in jobs] == [10, 12, 11, 13]


def test_settings_of_what_is_shared_are_part_of_the_kind():
    words = ("method=x", "model=a", "++model.steps=3", "~model.vae", "modelling=1")
    assert Job(0, words).kind(["model"]) == ("model=a", "++model.steps=3", "~model.vae")


def test_a_task_holds_jobs_of_one_kind():
    launcher = SlurmLauncher(per_task=2, together=["model"])
    packs = launcher.packs(launcher.jobs(sweep(*"abaab"), 0))
    assert [kinds(pack) for pack in packs] == [["model=a"] * 2, ["model=a"], ["model=b"] * 2]


def test_a_job_is_lost_when_no_copy_of_it_has_a_result(monkeypatch):
    launcher, (kept, gone) = Plain(), (Job(0, ("a=1",)), Job(1, ("a=2",)))
    monkeypatch.setattr(launcher, "give_up", lambda job, reason: f"{job.number}: {reason}")
    lost = {0: (kept, "killed"), 1: (gone, "killed")}
    assert launcher.give_up_all(lost, {0: "done"}) == {0: "done", 1: "1: killed"}


def test_an_interrupt_leaves_nothing_for_the_pool_s_manager_to_miss(monkeypatch):
    """Many more jobs than loky hands to its processes at once."""

    class Stops(dict):
        def __setitem__(self, number, result):
            raise KeyboardInterrupt

    faults, jobs = [], [Job(k, ()) for k in range(500)]
    monkeypatch.setattr(threading, "excepthook", faults.append)
    monkeypatch.setattr(cores, "_run", operator.call)
    with pytest.raises(KeyboardInterrupt):
        CoresLauncher(workers=1)._work(jobs, operator.attrgetter("number"), Stops())
    assert not faults


def test_every_job_is_handed_out_and_has_its_result(monkeypatch):
    results, jobs = {}, [Job(k, ()) for k in range(20)]
    monkeypatch.setattr(cores, "_run", operator.call)
    assert CoresLauncher(workers=1)._work(jobs, operator.attrgetter("number"), results) == ""
    assert results == {k: k for k in range(20)}


@pytest.mark.parametrize(("workers", "share"), [(1, 8), (3, 2), (8, 1), (20, 1)])
def test_workers_share_what_one_process_would_use(workers, share):
    launcher = Plain(shared="runtime.threads")
    launcher.config = OmegaConf.create({"runtime": {"threads": 8}})
    (job,) = launcher.shared_out([Job(0, ("seed=1",))], workers)
    assert job.overrides == ("seed=1", f"runtime.threads={share}")


def test_a_queue_gives_a_worker_its_own_kind_and_a_new_one_the_fullest():
    queue = Queue(Plain(together=["model"]).jobs(sweep(*"aaabb"), 0), lambda j: j.kind(["model"]))
    a, b = ("model=a",), ("model=b",)
    assert queue.kinds([]) == [a, b]
    assert queue.kinds([a]) == [b, a]
    assert queue.kinds([a, b]) == [a, b]
    taken = [queue.take(b) for _ in range(3)]
    assert [job and job.number for job in taken] == [3, 4, None]
    queue.put_back(taken[1])
    assert queue.take(b) == taken[1]
    assert len(queue) == 3


def test_the_examples_in_docstrings_hold():
    assert doctest.testmod(_jobs).failed == 0


def test_the_launchers_know_nothing_of_the_suite():
    for path in (ROOT / "hydra_plugins").rglob("*.py"):
        assert "latentbench" not in path.read_text(), path


# ---------------------------------------------------------------- Slurm


@pytest.fixture
def slurm_here(tmp_path, monkeypatch):
    """A machine on which submitit finds Slurm."""
    for name in ("srun", "sbatch"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def batch_script(tmp_path, *words):
    """The text that `launch=slurm` would give to sbatch."""
    pytest.importorskip("submitit")
    from hydra import compose
    from hydra.utils import instantiate

    from hydra_plugins.workers._array import executor
    from latentbench import plugins

    with plugins.conf():
        config = compose("config", ["launch=slurm", *words], return_hydra_config=True)
    launcher = instantiate(config.hydra.launcher)
    launcher.config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir=tmp_path)))
    return executor(launcher)._executor._make_submission_file_text("CELLS", "1")


def test_the_batch_script_asks_for_what_the_settings_say(tmp_path, slurm_here):
    text = batch_script(
        tmp_path,
        "launch.partition=a100",
        "launch.minutes=90",
        "launch.memory_gib=32",
        "runtime.threads=6",
        "launch.setup=[module load cuda]",
    )
    lines = text.splitlines()
    for line in ("partition=a100", "time=90", "mem=32GB", "cpus-per-task=6", "gpus-per-node=1"):
        assert f"#SBATCH --{line}" in lines
    assert "#SBATCH --signal=USR2@90" in lines  # time to go back into the queue
    assert "#SBATCH --open-mode=append" in lines
    assert lines.index("module load cuda") < next(
        k for k, line in enumerate(lines) if line.endswith("CELLS")
    )


def test_what_is_not_asked_for_is_left_to_the_cluster(tmp_path, slurm_here):
    text = batch_script(tmp_path, "launch.gpus=0")
    assert not any(word in text for word in ("partition", "--mem", "gpus"))
    assert "#SBATCH --job-name=latentbench" in text


# ---------------------------------------------------------------- Ray


@pytest.mark.parametrize(
    ("gib", "part"), [(None, 1.0), (80, 1.0), (41, 1.0), (40, 0.5), (9, 0.125)]
)
def test_a_job_gets_the_part_of_a_card_that_holds_it(gib, part):
    pytest.importorskip("ray")
    from hydra_plugins.workers._pool import share

    assert share(gib, 80.0) == part


def test_a_job_that_no_card_holds_is_refused():
    pytest.importorskip("ray")
    from hydra_plugins.workers._pool import NotEnough, share

    with pytest.raises(NotEnough, match="needs 81 GiB on one card, and the smallest here has 80"):
        share(81, 80.0)


def test_each_part_of_a_sweep_is_composed_once_beforehand():
    Plugins.instance()  # imports Hydra's sweeper anew
    from hydra_plugins.workers.sweeper import PartsSweeper

    composed = []
    loader = SimpleNamespace(
        load_sweep_config=lambda master_config, sweep_overrides: composed.append(sweep_overrides)
    )
    sweeper: Any = PartsSweeper(["seed"], {"metric": "benchmark"}, max_batch_size=None)
    sweeper.config, sweeper.hydra_context = {}, SimpleNamespace(config_loader=loader)
    choices = {"model": "ab", "method": "xyz", "benchmark": "pq", "metric": "mn", "seed": "0123"}
    batch = [
        [f"{name}={value}" for name, value in zip(choices, job, strict=True)]
        for job in product(*choices.values())
    ]
    sweeper.validate_batch_is_legal(batch)
    assert {word for words in composed for word in words} >= {f"method={m}" for m in "xyz"}
    assert {tuple(words[2:4]) for words in composed} == {
        (f"benchmark={b}", f"metric={m}") for b, m in product("pq", "mn")
    }
    assert len(batch) == 96 and len(composed) <= 8


def odd_seeds(jobs, compose, folder):
    """Return the jobs of odd seeds."""
    assert folder == Path("runs") and compose(jobs[0]) == "config"
    return [job for job in jobs if int(job[0][-1]) % 2]


def test_jobs_that_have_nothing_to_do_are_left_out():
    Plugins.instance()
    from hydra_plugins.workers.sweeper import PartsSweeper

    composed = []

    def load(master_config, sweep_overrides):
        composed.append(sweep_overrides)
        return "config"

    sweeper: Any = PartsSweeper(remaining=f"{__name__}.odd_seeds", max_batch_size=None)
    sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": "runs"}}})
    sweeper.hydra_context = SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=load))
    sweeper.overrides = [[["seed=0"], ["seed=1"]], [["seed=2"]], [["seed=3"]]]
    assert not sweeper.is_done()
    assert sweeper.overrides == [[["seed=1"]], [["seed=3"]]]
    assert composed == [["seed=0"]]
    sweeper.overrides, sweeper.batch_index = [], 0
    assert sweeper.is_done()


def test_yamls_that_are_parsed_once_give_the_same_configs():
    jobs = (["method=slerp", "benchmark=interpolation"], ["method=hspace", "seed=3"])
    with plugins.conf():
        loader: Any = GlobalHydra.instance().config_loader()
        plain = [compose("config", job, return_hydra_config=True) for job in jobs]
        loader.repository = KeptRepository(loader.repository)
        for _ in range(2):
            assert [compose("config", job, return_hydra_config=True) for job in jobs] == plain


def test_a_yaml_that_is_edited_while_a_sweep_runs_does_not_change_it(tmp_path):
    (tmp_path / "method").mkdir()
    yaml = tmp_path / "method" / "a.yaml"
    (tmp_path / "config.yaml").write_text("defaults: [{method: a}]")
    yaml.write_text("steps: 1")

    def steps(loader):
        return loader.load_configuration("config", [], RunMode.RUN).method.steps

    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        fresh: Any = GlobalHydra.instance().config_loader()
        kept = copy.deepcopy(fresh)
        kept.repository = KeptRepository(fresh.repository)
        assert steps(kept) == 1
        yaml.write_text("steps: 2")
        sent_to_a_worker = cloudpickle.loads(cloudpickle.dumps(kept))
        assert steps(kept) == steps(sent_to_a_worker) == 1
        assert steps(fresh) == 2


def test_a_process_that_keeps_a_large_model_is_not_replaced():
    def load(mebibytes):
        sys.modules[f"kept {mebibytes}"] = b"1" * (mebibytes << 20)
        time.sleep(1.1)  # between two looks of loky at a process's memory
        return os.getpid()

    with ProcessPoolExecutor(1, initializer=_stay, initargs=(os.getpid(),)) as pool:
        pids = [pool.submit(load, mebibytes).result() for mebibytes in (1, 400, 1)]
    assert len(set(pids)) == 1
