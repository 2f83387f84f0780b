"""An array of Slurm, by submitit: submitted at once, waited for, cancelled when interrupted."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from submitit.core.utils import DelayedSubmission, FailedJobError, UncompletedJobError

from hydra_plugins.workers._jobs import Job, worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pack:
    """What one task of the array runs.

    Args:
        packed: what `WorkersLauncher.packed` gave.
        jobs: its jobs.
    """

    packed: bytes
    jobs: tuple[Job, ...]

    def __call__(self) -> dict[int, JobReturn]:
        """Run the jobs one after the other."""
        return {job.number: worker(self.packed).run(job) for job in self.jobs}

    def checkpoint(self) -> DelayedSubmission:
        """Return what is put back into the queue on preemption and at the time limit."""
        return DelayedSubmission(self)


def executor(launcher: Any) -> submitit.AutoExecutor:
    """Return submitit's executor; its files and the tasks' output lie in the sweep's folder."""
    folder = Path(str(launcher.config.hydra.sweep.dir)) / "submitit"
    found = submitit.AutoExecutor(folder, cluster=launcher.cluster)
    plain = OmegaConf.to_container(OmegaConf.create(launcher.parameters))
    assert isinstance(plain, dict)
    found.update_parameters(**{str(name): value for name, value in plain.items()})
    return found


def run(launcher: Any, packs: Sequence[Sequence[Job]]) -> dict[int, JobReturn]:
    """Submit the packs, and return the results of their jobs by number.

    Args:
        launcher: the `SlurmLauncher`.
        packs: the jobs of each task.
    """
    packed, array = launcher.packed(), executor(launcher)
    with array.batch():
        tasks = [array.submit(Pack(packed, tuple(pack))) for pack in packs]
    results: dict[int, JobReturn] = {}
    lost: dict[int, tuple[Job, str]] = {}
    try:
        for task, pack in zip(tasks, packs, strict=True):
            try:
                results |= task.result()
            except (FailedJobError, UncompletedJobError) as error:
                reason = _in_words(task, error)
                log.warning(reason)
                lost |= {job.number: (job, reason) for job in pack}
    finally:
        for task in tasks:
            if not task.done():
                task.cancel(check=False)
    return launcher.give_up_all(lost, results)


def _in_words(task: Any, error: Exception) -> str:
    last = str(error).strip().splitlines()[-1]
    return f"task {task.job_id} ended without a result ({last}); see {task.paths.stderr}"
