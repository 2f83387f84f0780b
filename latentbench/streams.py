"""Randomness: one generator per (seed, component, image id), so that rows never share a draw."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from latentbench.errors import BadInput

LARGE = (2**32 - 1) // 20  # population from which on torch shuffles inside out
BEGUN = 4096  # numbers that are kept of a shuffle of so many
DRAWN = 2**20  # numbers that are drawn at once


@dataclass(frozen=True)
class Streams:
    """Named streams of random numbers.

    Every draw is made on the CPU from a generator seeded by the hash of (seed, component, id):
    adding a method, an image or a worker never changes another draw.

    Args:
        seed: the cell's seed.

    Example:
        >>> a = Streams(0).normal("prior", ["x", "y"], (3,))
        >>> b = Streams(0).normal("prior", ["y", "x"], (3,))
        >>> bool((a == b.flip(0)).all())
        True
    """

    seed: int

    def generator(self, component: str, name: str = "") -> torch.Generator:
        """Return the CPU generator of one component and image id."""
        key = f"{self.seed}/{component}/{name}".encode()
        number = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
        return torch.Generator().manual_seed(number)

    def normal(
        self,
        component: str,
        ids: Sequence[str],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Return float32 standard normal noise ``[len(ids), *shape]``, one stream per id."""
        draws = [torch.randn(tuple(shape), generator=self.generator(component, i)) for i in ids]
        return torch.stack(draws).to(device)

    def choice(self, component: str, population: int, count: int) -> list[int]:
        """Return `count` different numbers below `population`, in random order.

        Raises:
            BadInput: more are wanted than there are.

        Example:
            >>> Streams(0).choice("fit", 3, 3) == Streams(0).choice("fit", 3, 3)
            True
        """
        if count > population:
            raise BadInput(f"{count} of {population} cannot be chosen; ask for fewer")
        if population >= LARGE:
            return list(_begun(self, component, population, max(count, BEGUN))[:count])
        order = torch.randperm(population, generator=self.generator(component))
        return order[:count].tolist()


@functools.lru_cache(maxsize=16)
def _begun(streams: Streams, component: str, population: int, count: int) -> tuple[int, ...]:
    """Return the beginning of a large shuffle, which choices of several sizes share."""
    seed = streams.generator(component).initial_seed()
    return tuple(inside_out(seed, population, count).tolist())


def inside_out(seed: int, population: int, count: int) -> Int64[np.ndarray, " c"]:
    """Return the first numbers that `torch.randperm` gives for a large population.

    There it has the "inside-out" shuffle: number i = 0, 1, ... is put at a place z_i drawn from 0
    to i, whose number moves to place i. So the number that stays at an early place is the last that
    was put there, and nothing else has to be kept of the whole.

    Args:
        seed: of the generator; the Mersenne Twister is seeded by its lower 32 bits.
        population: how many numbers there are.
        count: how many are returned.

    Example:
        >>> sorted(inside_out(0, 5, 5).tolist())
        [0, 1, 2, 3, 4]
    """
    twister = np.random.RandomState(seed % 2**32)
    order = np.zeros(count, dtype=np.int64)
    for start in range(0, population, DRAWN):
        i = np.arange(start, min(start + DRAWN, population), dtype=np.uint64)
        halves = np.frombuffer(twister.bytes(8 * len(i)), dtype="<u4").reshape(-1, 2)
        z = (halves[:, 0].astype(np.uint64) << np.uint64(32) | halves[:, 1]) % (i + np.uint64(1))
        for k in np.flatnonzero((z < count) | (i < count)):
            here, place = int(i[k]), int(z[k])
            if here < count:
                order[here] = order[place]
            if place < count:
                order[place] = here
    return order
