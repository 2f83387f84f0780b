"""`hydra/launcher=ray_queue`: one queue over the GPUs, or cores, of a machine or a cluster."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.workers._jobs import Common, WorkersLauncher, in_order, store

SETTINGS = {  # of Ray, where the user has set none
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}


class RayLauncher(WorkersLauncher):
    """Runs jobs in Ray actors that stay, so that what one has loaded serves the next job.

    Ray places the workers, gives each its part of a card and notices when one dies; which job a
    free worker takes is decided here (`_queue.Queue`). A job asks for the memory that its config
    states under `memory`: a card of 80 GiB is shared by four jobs of 20. One without a statement
    gets a card of its own. Without cards, each worker gets its share of the cores.

    Args:
        address: of a running cluster, or "auto"; None: this machine alone, by a Ray of its own.
        workers: processes; None: as many as the cards hold, or else one per core.
        device: "cpu": no card is asked for, even if there are some.
        memory: key of the GPU memory of a job in GiB, such as "model.gpu_gib"; None: a card each.
        retries: how often a job is tried again whose worker died.
        others: see `WorkersLauncher`.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        device: str = "auto",
        memory: str | None = None,
        retries: int = 2,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.address, self.workers, self.device = address, workers, device
        self.memory, self.retries = memory, retries

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; a job whose worker dies is tried again by another.

        Raises:
            NotEnough: a job asks for more than any machine has.
        """
        for name, value in SETTINGS.items():  # some are read when Ray is imported
            os.environ.setdefault(name, value)
        from hydra_plugins.workers._pool import run

        jobs = self.jobs(job_overrides, initial_job_idx) * self.copies
        return in_order(run(self, jobs))


@dataclass
class Settings(Common):
    """The launcher's settings, as `hydra.launcher` has them."""

    _target_: str = "hydra_plugins.workers.ray_queue.RayLauncher"
    address: str | None = None
    workers: int | None = None
    device: str = "auto"
    memory: str | None = None
    retries: int = 2


store("ray_queue", Settings)
