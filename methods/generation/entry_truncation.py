"""The truncation trick on noise: large entries are drawn again."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import between
from latentbench.types import Space
from methods.generation.changed_prior import ChangedPrior


class EntryTruncation(ChangedPrior):
    """z of a truncated normal law: each entry with |z_i| > tau is drawn again until it is inside.

    Source: "Large Scale GAN Training for High Fidelity Natural Image Synthesis", section 3.1.

    Args:
        tau: the largest entry, in standard deviations of the noise.

    Example:
        >>> method = EntryTruncation(tau=0.5)  # method.generate(("a",), None)
    """

    paper = "Large Scale GAN Training for High Fidelity Natural Image Synthesis, section 3.1"

    def __init__(self, *, tau: Annotated[float, between(0.05, 10)] = 1.0) -> None:
        super().__init__()
        self.tau = tau

    def changed(self, noise: Float[Tensor, "b ..."], ids: Sequence[str]) -> Mapping[Space, Tensor]:
        """Return noise without large entries; the others stay."""
        rows = zip(noise, ids, strict=True)
        return {Space.NOISE: torch.stack([self._inside(z, name) for z, name in rows])}

    def _inside(self, noise: Float[Tensor, "..."], name: str) -> Float[Tensor, "..."]:
        draw = self.streams.generator(type(self).__name__, name)
        while bool((noise.abs() > self.tau).any()):
            fresh = torch.randn(noise.shape, generator=draw).to(noise)
            noise = torch.where(noise.abs() > self.tau, fresh, noise)
        return noise
