"""What all launchers here share: the jobs of a sweep in their order, and one job in a worker."""

import functools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_method
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict


class WorkersLauncher(Launcher):
    """What a launcher is told before it starts.

    Args:
        together: first words of the overrides that jobs should share with their neighbours, such as
            "model": a worker changes its model as rarely as possible.
        lost: full name of a function (config, reason) that is called as the task of a job whose
            worker died; its result is the job's. None: the sweep ends with an error.
        shared: key of a number that all workers of a machine may use together, such as that of
            threads: each job gets an equal share of it.
        variables: names of environment variables that workers take over, on other machines too.
        copies: how many workers are given each job, where its task knows how to share work; a job
            is lost when all of them are.
    """

    def __init__(
        self,
        together: Sequence[str] = (),
        lost: str | None = None,
        shared: str | None = None,
        variables: Sequence[str] = (),
        copies: int = 1,
    ) -> None:
        self.together, self.lost, self.copies = tuple(together), lost, copies
        self.shared, self.variables = shared, tuple(variables)
        self.config: Any = None
        self.hydra_context: Any = None
        self.task_function: Any = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives."""
        self.config, self.hydra_context = config, hydra_context
        self.task_function = task_function

    def jobs(self, overrides: Sequence[Sequence[str]], first: int) -> list["Job"]:
        """Return the jobs of a sweep, those that belong together side by side."""
        jobs = [Job(first + k, tuple(words)) for k, words in enumerate(overrides)]
        places: dict[tuple[str, ...], int] = {}
        for job in jobs:
            places.setdefault(job.kind(self.together), len(places))
        return sorted(jobs, key=lambda job: places[job.kind(self.together)])

    def share_of(self, workers: int) -> int | None:
        """Return the share of each worker, 1 at least; None where nothing is shared."""
        if self.shared is None:
            return None
        return max(1, int(OmegaConf.select(self.config, self.shared)) // workers)

    def shared_out(self, jobs: Sequence["Job"], workers: int) -> list["Job"]:
        """Return jobs that are given their share of what so many workers have together."""
        share = self.share_of(workers)
        words = () if share is None else (f"{self.shared}={share}",)
        return [replace(job, overrides=(*job.overrides, *words)) for job in jobs]

    def number(self, job: "Job", key: str | None) -> float | None:
        """Return a number of a job's config; None where it says nothing."""
        found = None if key is None else OmegaConf.select(self.composed(job), key)
        return None if found is None else float(found)

    def packed(self) -> bytes:
        """Return all that a worker needs besides a job, for any machine with these files."""
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        variables = {name: os.environ[name] for name in self.variables if name in os.environ}
        inner = (self.hydra_context, self.config, self.task_function, Singleton.get_state())
        outer = (
            str(Path.cwd()),
            list(sys.path),
            variables,
            cloudpickle.dumps(inner),
        )
        return cloudpickle.dumps(outer)

    def composed(self, job: "Job") -> DictConfig:
        """Return the config of a job."""
        return _composed(self.hydra_context, self.config, job)

    def give_up(self, job: "Job", reason: str) -> JobReturn:
        """Return the result of a job that no worker finished.

        Raises:
            RuntimeError: nobody takes care of lost jobs.
        """
        if self.lost is None:
            raise RuntimeError(f"job {' '.join(job.overrides)}: {reason}")
        task = functools.partial(get_method(self.lost), reason=reason)
        return _run(self.hydra_context, self.config, task, job)

    def give_up_all(
        self, lost: Mapping[int, tuple["Job", str]], results: Mapping[int, JobReturn]
    ) -> dict[int, JobReturn]:
        """Return all results, those of lost jobs that no other worker has finished included.

        Args:
            lost: number -> the job, and what is known of its death.
            results: number -> result of the others.
        """
        given_up = {n: self.give_up(*one) for n, one in lost.items() if n not in results}
        return {**given_up, **results}


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Args:
        number: its place in the sweep.
        overrides: its words.
    """

    number: int
    overrides: tuple[str, ...]

    def kind(self, together: Iterable[str]) -> tuple[str, ...]:
        """Return the words that it shares with the jobs that belong to it.

        Example:
            >>> Job(0, ("model=a", "+model.steps=3", "seed=1")).kind(["model"])
            ('model=a', '+model.steps=3')
        """
        wanted = set(together)
        names = {word: word.lstrip("+~").partition("=")[0].split(".")[0] for word in self.overrides}
        return tuple(word for word, name in names.items() if name in wanted)


class Worker:
    """Runs jobs one after the other in this process.

    Args:
        packed: what `WorkersLauncher.packed` gave.
    """

    def __init__(self, packed: bytes) -> None:
        folder, path, variables, inner = cloudpickle.loads(packed)
        os.chdir(folder)
        sys.path[:] = [*sys.path, *(entry for entry in path if entry not in sys.path)]
        os.environ.update(variables)
        setup_globals()
        self.context, self.config, self.task, state = cloudpickle.loads(inner)
        Singleton.set_state(state)

    def run(self, job: Job, variables: Mapping[str, str] | None = None) -> JobReturn:
        """Run one job and return its result, an error as a failed one."""
        os.environ.update(variables or {})
        return _run(self.context, self.config, self.task, job)


@functools.lru_cache(maxsize=1)
def worker(packed: bytes) -> Worker:
    """Return the worker of this process."""
    return Worker(packed)


def in_order(results: Mapping[int, JobReturn]) -> list[JobReturn]:
    """Return results by number in the order of the sweep."""
    return [results[number] for number in sorted(results)]


def _composed(context: HydraContext, config: DictConfig, job: Job) -> DictConfig:
    found = context.config_loader.load_sweep_config(config, list(job.overrides))
    with open_dict(found):
        found.hydra.job.id = f"{found.hydra.job.name}_{job.number}"
        found.hydra.job.num = job.number
    return found


def _run(context: HydraContext, config: DictConfig, task: TaskFunction, job: Job) -> JobReturn:
    setup_globals()
    composed = _composed(context, config, job)
    HydraConfig.instance().set_config(composed)
    done = run_job(
        hydra_context=context,
        config=composed,
        task_function=task,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
    done.cfg = done.hydra_cfg = None  # a thousand of them travel and stay
    return done


@dataclass
class Common:
    """Settings that all launchers here have, as `hydra.launcher` has them."""

    _target_: str = MISSING
    together: list[str] = field(default_factory=list)
    lost: str | None = None
    shared: str | None = None
    variables: list[str] = field(default_factory=list)
    copies: int = 1


def store(name: str, settings: type[Common]) -> None:
    """Make `hydra/launcher=NAME` known."""
    ConfigStore.instance().store(
        group="hydra/launcher", name=name, node=settings, provider=__package__
    )


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
