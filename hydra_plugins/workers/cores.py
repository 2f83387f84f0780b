"""`hydra/launcher=cores`: the jobs of a sweep over processes of this machine, by joblib."""

import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.workers._jobs import (
    Common,
    Job,
    WorkersLauncher,
    cores,
    in_order,
    store,
    worker,
)

log = logging.getLogger(__name__)
FRUITLESS = 3  # pools in a row that break before they have finished a job
LOOK = 0.5  # seconds between two looks at whether the sweep is there


class CoresLauncher(WorkersLauncher):
    """Runs jobs in processes that stay until the sweep ends.

    Args:
        workers: processes, no more than there are jobs; None: as many as cores.
        others: see `WorkersLauncher`.
    """

    def __init__(self, workers: int | None = None, **others: Any) -> None:
        super().__init__(**others)
        self.workers = workers or cores()

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs.

        A process that dies breaks the pool, and what it had not finished starts again in another.
        When several in a row break before they have finished a single job, the rest is given up.
        """
        results: dict[int, JobReturn] = {}
        fruitless = 0
        jobs = self.jobs(job_overrides, initial_job_idx) * self.copies
        packed = self.packed()
        ahead = self.shared_out(jobs, min(self.workers, len(jobs)))
        while ahead:
            finished = len(results)
            broken = self._work(ahead, packed, results)
            ahead = [job for job in ahead if job.number not in results]
            fruitless = 0 if len(results) > finished else fruitless + 1
            if broken and fruitless == FRUITLESS:
                results |= {job.number: self.give_up(job, broken) for job in ahead}
                break
        return in_order(results)

    def _work(self, jobs: Sequence[Job], packed: bytes, results: dict[int, JobReturn]) -> str:
        """Run jobs in a pool of their own; return how it broke, or an empty string."""
        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        count = min(self.workers, len(jobs))
        pool = ProcessPoolExecutor(count, initializer=_stay, initargs=(os.getpid(),))
        waiting, handed = iter(jobs), {}

        def hand(some: int) -> None:
            handed.update({pool.submit(_run, packed, job): job for job in islice(waiting, some)})

        try:
            # What loky itself keeps waiting, its manager looks up in vain when the pool is ended.
            hand(2 * count)
            while handed:
                for done in wait(handed, return_when=FIRST_COMPLETED).done:
                    results[handed.pop(done).number] = done.result()
                    hand(1)
        except TerminatedWorkerError as error:
            log.warning("a process of the sweep was killed; others go on with its jobs")
            return f"its process was killed: {' '.join(str(error).split())}"
        finally:
            pool.shutdown(kill_workers=True)
        return ""


def _stay(sweep: int) -> None:
    """Let this process keep what its jobs load, and end when the sweep's is gone, even if killed.

    By itself, loky takes what a job leaves in memory, such as a model, for a leak, and replaces the
    process above 300 MB.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = sys.maxsize

    def watch() -> None:
        while os.getppid() == sweep:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(packed: bytes, job: Job) -> JobReturn:
    return worker(packed).run(job)


@dataclass
class Settings(Common):
    """The launcher's settings, as `hydra.launcher` has them."""

    _target_: str = "hydra_plugins.workers.cores.CoresLauncher"
    workers: int | None = None


store("cores", Settings)
