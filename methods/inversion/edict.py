"""EDICT: two coupled latents, each moved by the prediction at the other, invert exactly."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Steps, above, at_most
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.parameterization import Grid, whole_steps
from latentbench.sampling.loop import Term, guided, predict
from latentbench.types import Batch, Capability, Latent, Space
from methods.inversion.prompt_swap import PromptSwapEditor


class EDICT(PromptSwapEditor):
    """Affine coupling of a pair of latents (x, y), with mixing; its inverse is closed-form.

    Source: "EDICT: Exact Diffusion Inversion via Coupled Transformations", section 4, equations
    14 and 15. A step is x' = p x + q eps(y), y' = p y + q eps(x'), then x <- m x' + (1 - m) y' and
    y <- m y' + (1 - m) x. The two swap their roles in every other step. The strength is lambda in
    c = (1 - lambda) c_source + lambda c_target at one guidance w: 0 is the reconstruction, 1 the
    published edit.
    Deviations: the pair is kept in float64 and the network runs in its own precision (the paper
    runs all of it in float64); a flow's steps couple through velocities; levels are the sampler's
    own, never interpolated.

    Args:
        steps: sampling steps; default: the model's.
        depth: share of the steps that are inverted.
        mix: m; what is lost to the mixing is multiplied by 1 / m^2 per inverted step.
        guidance: guidance scale w of inversion and edit.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = EDICT(depth=0.8)  # editor.decode(editor.invert(batch))
    """

    paper = "EDICT: Exact Diffusion Inversion via Coupled Transformations, section 4"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        depth: Annotated[float, above(0), at_most(1)] = 0.8,
        mix: Annotated[float, above(0), at_most(1)] = 0.93,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.depth, self.mix = steps, depth, mix
        self.guidance, self.max_strength = guidance, max_strength

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a depth of less than a step."""
        if steps is not None:
            self._start(steps)

    def invert(self, batch: Batch) -> Latent:
        """Return the pair, y after x along the channels, at the level that `depth` names; cached.

        The part is float64.
        """
        model, grid = self.model, self.model.grid(self.steps)
        start = self._start(grid.n)
        prompts = batch.prompts if Capability.PROMPTS in model.gives else None
        source = model.condition(prompts, len(batch))
        key = content_hash(
            self.version, model.fingerprint(), grid.timesteps, start, self.mix, self.guidance,
            batch.images, source.tensors,
        )  # fmt: skip

        def make() -> dict[str, Tensor]:
            x0 = model.encode(batch.images).double()
            pair = self._inverted((x0, x0), grid, start, self._terms(source, len(batch)))
            return {"pair": torch.cat(pair, 1)}

        pair = self.cache.get_or_make("edict", key, make)["pair"].to(model.device)
        return Latent({Space.NOISE: pair}, start, batch.prompts)

    def _start(self, n: int) -> int:
        """Return the level of a sampler of n steps that the pair is taken to."""
        k = whole_steps(self.depth, n)
        if k == 0:
            raise BadInput(
                f"method.depth={self.depth:g} is 0 of {n} sampling steps; give {1 / n:g} or more"
            )
        return n - k

    def decode_towards(
        self, latent: Latent, target: Condition, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of codes under conditions between their own and the target."""
        model, b, s = self.model, len(latent), len(strengths)
        source = model.condition_of(latent).repeat(s)
        terms = self._terms(source.lerp(target.repeat(s), strengths.repeat(b)), b * s)
        x, y = latent.parts[Space.NOISE].repeat_interleave(s, 0).chunk(2, 1)
        x, _ = self._generated((x, y), model.grid(self.steps), latent.start, terms)
        return model.decode(x.float()).unflatten(0, (b, s))

    def _terms(self, condition: Condition, rows: int) -> tuple[Term, ...]:
        return guided(condition, self.model.unconditional(rows), self.guidance)

    def _generated(
        self, pair: tuple[Tensor, Tensor], grid: Grid, start: int, terms: tuple[Term, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return the pair at the clean end."""
        m, latents = self.mix, list(pair)
        for i in range(start, grid.n):
            p, q = grid.linear_step(i)
            for k in _order(i - start):  # equation 14
                latents[k] = p * latents[k] + q * self._direction(latents[1 - k], grid, i, terms)
            latents[0] = m * latents[0] + (1 - m) * latents[1]
            latents[1] = m * latents[1] + (1 - m) * latents[0]
        return latents[0], latents[1]

    def _inverted(
        self, pair: tuple[Tensor, Tensor], grid: Grid, start: int, terms: tuple[Term, ...]
    ) -> tuple[Tensor, Tensor]:
        """Return the pair at level `start`: every operation undone, from the last one on."""
        m, latents = self.mix, list(pair)
        for i in reversed(range(start, grid.n)):
            p, q = grid.linear_step(i)
            latents[1] = (latents[1] - (1 - m) * latents[0]) / m
            latents[0] = (latents[0] - (1 - m) * latents[1]) / m
            for k in reversed(_order(i - start)):  # equation 15
                latents[k] = (latents[k] - q * self._direction(latents[1 - k], grid, i, terms)) / p
        return latents[0], latents[1]

    def _direction(self, x: Tensor, grid: Grid, i: int, terms: tuple[Term, ...]) -> Tensor:
        return grid.linear_direction(i, *predict(self.model, x, grid, i, terms))


def _order(number: int) -> tuple[int, int]:
    """Return which of the pair moves first in a step, and which second."""
    return (0, 1) if number % 2 == 0 else (1, 0)
