"""Randomness: one generator per (seed, component, image id), so that rows never share a draw."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from latentbench.errors import BadInput


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
        order = torch.randperm(population, generator=self.generator(component))
        return order[:count].tolist()
