"""Which job a free worker takes: one of the kind that it has loaded, as long as there is one."""

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable

from hydra_plugins.workers._jobs import Job


class Queue:
    """Jobs that wait, by kind.

    Args:
        jobs: the jobs.
        kind: what jobs have in common that a worker loads.
    """

    def __init__(self, jobs: Iterable[Job], kind: Callable[[Job], Hashable]) -> None:
        self.kind = kind
        self._waiting: dict[Hashable, deque[Job]] = {}
        for job in jobs:
            self._waiting.setdefault(kind(job), deque()).append(job)

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def kinds(self, loaded: Iterable[Hashable]) -> list[Hashable]:
        """Return the kinds that wait, the one first that has most jobs per worker.

        Args:
            loaded: the kind of each worker.
        """
        workers = Counter(loaded)
        waiting = [kind for kind, jobs in self._waiting.items() if jobs]
        return sorted(waiting, key=lambda k: -len(self._waiting[k]) / (1 + workers[k]))

    def take(self, kind: Hashable) -> Job | None:
        """Return the next job of a kind, or None where none waits."""
        jobs = self._waiting.get(kind)
        return jobs.popleft() if jobs else None

    def put_back(self, job: Job) -> None:
        """Let a job be the next of its kind."""
        self._waiting[self.kind(job)].appendleft(job)
