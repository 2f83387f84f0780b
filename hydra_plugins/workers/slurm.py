"""`hydra/launcher=slurm_packs`: the jobs of a sweep as an array of Slurm, several to each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.workers._jobs import Common, Job, WorkersLauncher, in_order, store


class SlurmLauncher(WorkersLauncher):
    """Submits one array whose tasks run several jobs each, one after the other.

    A task that is preempted, or reaches its time limit, is put back into the queue by submitit and
    runs its jobs again: those that are done should see so by themselves.

    Args:
        cluster: "slurm", "local" (processes on this machine) or "debug" (this process).
        per_task: jobs of a task; all of them belong together.
        parameters: submitit's names -> values; those that are None, zero or empty are left out.
        others: see `WorkersLauncher`.
    """

    def __init__(
        self,
        cluster: str = "slurm",
        per_task: int = 1,
        parameters: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.cluster, self.per_task = cluster, per_task
        self.parameters = {name: value for name, value in (parameters or {}).items() if value}

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; those of a task that ends without a result are given up."""
        from hydra_plugins.workers._array import run

        jobs = self.jobs(job_overrides, initial_job_idx)
        return in_order(run(self, self.packs(jobs) * self.copies))

    def packs(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Return the jobs of each task: neighbours that belong together."""
        kinds = [list(same) for _, same in groupby(jobs, lambda job: job.kind(self.together))]
        size = self.per_task
        return [same[k : k + size] for same in kinds for k in range(0, len(same), size)]


@dataclass
class Settings(Common):
    """The launcher's settings, as `hydra.launcher` has them."""

    _target_: str = "hydra_plugins.workers.slurm.SlurmLauncher"
    cluster: str = "slurm"
    per_task: int = 1
    parameters: dict[str, Any] = field(default_factory=dict)


store("slurm_packs", Settings)
