"""What a phase of a cell took: wall time and denoiser evaluations."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from latentbench.cache import Cache


@dataclass
class Cost:
    """Wall time and denoiser evaluations of a phase.

    Args:
        seconds: wall time.
        forward: forward evaluations, in rows, spared ones included.
        backward: backward evaluations, in rows, spared ones included.
        spared: how many of both were not done, because the result was in the cache.
    """

    seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    spared: int = 0

    @contextmanager
    def measure(self, cache: Cache | None = None) -> Iterator[None]:
        """Add what the block takes; without a cache, its time alone."""
        start = time.perf_counter()
        before = [0, 0, 0] if cache is None else _counts(cache)
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            after = before if cache is None else _counts(cache)
            self.forward += after[0] - before[0]
            self.backward += after[1] - before[1]
            self.spared += after[2] - before[2]

    def add(self, other: "Cost") -> None:
        """Add another cost."""
        self.seconds += other.seconds
        self.forward += other.forward
        self.backward += other.backward
        self.spared += other.spared

    def evaluations(self) -> dict[str, int]:
        """Return the denoiser evaluations alone."""
        return {"forward": self.forward, "backward": self.backward, "spared": self.spared}


def _counts(cache: Cache) -> list[int]:
    return [*cache.cost().tolist(), int(cache.saved.sum())]
