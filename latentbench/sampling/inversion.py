"""DDIM inversion, cached: it belongs to model, images and settings, not to who asked for it."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import TypedDict, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.cache import Cache
from latentbench.content import content_hash
from latentbench.errors import BadInput
from latentbench.model import Condition, Convention, DiffusionModel
from latentbench.parameterization import Grid
from latentbench.sampling.fixed_point import FixedPoint
from latentbench.sampling.loop import Intervention, Recorder, Term, guided, invert, noise_to_level
from latentbench.types import Batch

VERSION = 2


class InversionSettings(TypedDict, total=False):
    """How images are inverted.

    Args:
        steps: number of sampling steps; default: the model's.
        condition: what the network receives while inverting; default: the empty condition.
        null: what guidance leads away from; default: the empty condition.
        guidance: scale of classifier-free guidance; 1, the default, is none.
        convention: see `latentbench.sampling.loop.invert`; default: "matched".
        forward_noise: for `forward_steps`.
        forward_steps: replace this many of the first inversion steps (at the clean end) by one
            draw of the forward process ("There and Back Again", the first-steps fix).
        fixed_point: how each step is refined; default: not at all.
    """

    steps: int | None
    condition: Condition | None
    null: Condition | None
    guidance: float
    convention: Convention
    forward_noise: Float[Tensor, "b ..."] | None
    forward_steps: int
    fixed_point: FixedPoint | None


def ddim_invert(
    model: DiffusionModel, batch: Batch, cache: Cache, **settings: Unpack[InversionSettings]
) -> Float[Tensor, "b ..."]:
    """Return x_T of images.

    Args:
        model: the denoiser.
        batch: images.
        cache: where the result is kept; a trajectory that is there already serves as well.
        settings: see `InversionSettings`.

    Raises:
        BadInput: more forward steps than steps.
    """
    inversion = _Inversion(model, batch, **settings)
    known = cache.find("trajectory", inversion.key)
    if known is not None:
        return known["x"][:, 0].to(model.device)
    found = cache.get_or_make("inversion", inversion.key, lambda: {"x": inversion.run()})
    return found["x"].to(model.device)


def ddim_trajectory(
    model: DiffusionModel, batch: Batch, cache: Cache, **settings: Unpack[InversionSettings]
) -> Float[Tensor, "b l ..."]:
    """Return x at all levels of the inversion: x_T first, the clean latents last.

    Levels that a forward draw replaces hold the images under that draw's noise.

    Args:
        model: the denoiser.
        batch: images.
        cache: where the result is kept.
        settings: see `InversionSettings`.

    Raises:
        BadInput: more forward steps than steps.
    """
    inversion = _Inversion(model, batch, **settings)
    found = cache.get_or_make("trajectory", inversion.key, lambda: {"x": inversion.levels()})
    return found["x"].to(model.device)


@dataclass(frozen=True)
class _Inversion:
    """One inversion of a batch; see `InversionSettings`."""

    model: DiffusionModel
    batch: Batch
    steps: int | None = None
    condition: Condition | None = None
    null: Condition | None = None
    guidance: float = 1.0
    convention: Convention = "matched"
    forward_noise: Float[Tensor, "b ..."] | None = None
    forward_steps: int = 0
    fixed_point: FixedPoint | None = None

    def __post_init__(self) -> None:
        n = self.grid.n
        if not 0 <= self.forward_steps <= n:
            raise BadInput(
                f"forward_steps must be 0 to {n}, the sampling steps; got {self.forward_steps}"
            )

    @cached_property
    def grid(self) -> Grid:
        return self.model.grid(self.steps)

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        empty = self.model.unconditional(len(self.batch))
        condition = empty if self.condition is None else self.condition
        return guided(condition, empty if self.null is None else self.null, self.guidance)

    @property
    def key(self) -> str:
        refined = None if self.fixed_point is None else astuple(self.fixed_point)
        return content_hash(
            VERSION, self.model.fingerprint(), self.grid.timesteps, self.batch.images,
            self.convention, self.guidance, [term.condition.tensors for term in self.terms],
            self.forward_noise, self.forward_steps, refined,
        )  # fmt: skip

    def run(self, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "b ..."]:
        """Return x_T."""
        start = self.grid.n - self._drawn
        return invert(
            self.model, self.at(start), self.terms, grid=self.grid, start=start,
            convention=self.convention, fixed_point=self.fixed_point, interventions=interventions,
        )  # fmt: skip

    def levels(self) -> Float[Tensor, "b l ..."]:
        """Return x at all levels."""
        recorder, start = Recorder(), self.grid.n - self._drawn
        self.run([recorder])
        inverted = [recorder.x[i] for i in range(start)]
        return torch.stack([*inverted, *(self.at(i) for i in range(start, self.grid.n + 1))], 1)

    def at(self, level: int) -> Float[Tensor, "b ..."]:
        """Return the clean latents at level n, before it those under the forward draw's noise."""
        if level == self.grid.n or self.forward_noise is None:
            return self._x0
        return noise_to_level(self.grid, self._x0, self.forward_noise.to(self._x0), level)

    @property
    def _drawn(self) -> int:
        return 0 if self.forward_noise is None else self.forward_steps

    @cached_property
    def _x0(self) -> Tensor:
        return self.model.encode(self.batch.images)
