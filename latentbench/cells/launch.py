"""Where the cells of a sweep run: the settings of `launch=`, and what is refused beforehand.

The engines are Hydra launchers that know nothing of cells (hydra_plugins/workers); conf/launch
hands these settings to them.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from typing import Annotated, Literal

from latentbench.bounds import Count, Name, between

Retries = Annotated[int, between(0, 100)]
Gibibytes = Annotated[int, between(1, 100_000)]


def lacks(module: str, extra: str) -> str:
    """Return how to install the engine of a launcher where it is missing, or an empty string.

    Args:
        module: what it is imported as.
        extra: the extra that installs it, which is also the launcher's name.
    """
    if importlib.util.find_spec(module) is not None:
        return ""
    return f"launch={extra} needs {module}, which is not installed: uv sync --extra {extra}"


class Local:
    """One process on this machine, one cell after the other.

    Args:
        dry: tell what would run, and run nothing.
    """

    def __init__(self, *, dry: bool = False) -> None:
        self.dry = dry

    def faults(self, device: str) -> Iterator[str]:
        """Yield what stands against it.

        Args:
            device: `runtime.device`.
        """
        yield from ()


class Cores(Local):
    """Several processes on this machine, one cell each.

    Args:
        workers: processes, which share `runtime.threads`; null: as many as there are cores.
        dry: tell what would run, and run nothing.
    """

    def __init__(self, *, workers: Count | None = None, dry: bool = False) -> None:
        super().__init__(dry=dry)
        self.workers = workers


class Ray(Local):
    """One queue over the GPUs, or else the cores, of this machine or of a Ray cluster.

    Args:
        address: "auto" or an address of a running cluster; null: this machine alone.
        workers: processes; null: as many as the cards hold by the models' `gpu_gib`. Without cards
            they share `runtime.threads`, and null is as many as there are cores.
        retries: how often a cell is tried again whose worker died.
        dry: tell what would run, and run nothing.
    """

    def __init__(
        self,
        *,
        address: Name | None = None,
        workers: Count | None = None,
        retries: Retries = 2,
        dry: bool = False,
    ) -> None:
        super().__init__(dry=dry)
        self.address, self.workers, self.retries = address, workers, retries

    def faults(self, device: str) -> Iterator[str]:
        """Yield what stands against it; each worker sees the one card that Ray gave it."""
        if lack := lacks("ray", "ray"):
            yield lack
        if device.startswith("cuda:"):
            yield (
                f"runtime.device={device} names one card, and launch=ray gives every worker its "
                f"own; write runtime.device=cuda, or leave it out"
            )


class Slurm(Local):
    """Jobs of a Slurm cluster, several cells each, as one array.

    Args:
        cells_per_job: cells of one model that a job computes, one after the other.
        at_once: jobs that run at a time; null: as many as the cluster admits.
        partition: where they run; null: the cluster's default.
        minutes: time limit of a job; one that reaches it goes on in the queue at its batch.
        gpus: cards of a job.
        cpus: cores of a job.
        memory_gib: host memory of a job; null: the cluster's default.
        setup: lines of the batch script before the job, such as "module load cuda".
        cluster: "slurm", "local" (processes on this machine) or "debug" (this process), to try it.
        dry: tell what would run, and run nothing.
    """

    def __init__(
        self,
        *,
        cells_per_job: Count = 8,
        at_once: Count | None = None,
        partition: Name | None = None,
        minutes: Count = 240,
        gpus: Annotated[int, between(0, 64)] = 1,
        cpus: Count = 4,
        memory_gib: Gibibytes | None = None,
        setup: list[Name] = (),  # pyright: ignore[reportArgumentType]  # yaml has lists only
        cluster: Literal["slurm", "local", "debug"] = "slurm",
        dry: bool = False,
    ) -> None:
        super().__init__(dry=dry)
        self.cluster = cluster

    def faults(self, device: str) -> Iterator[str]:
        """Yield what stands against it."""
        if lack := lacks("submitit", "slurm"):
            yield lack
        elif self.cluster == "slurm" and shutil.which("sbatch") is None:
            yield (
                "launch=slurm finds no sbatch on this machine; type the command on a login node of "
                "the cluster, or try it here with launch.cluster=local"
            )
