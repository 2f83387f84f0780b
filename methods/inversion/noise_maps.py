"""Editors whose code is x_T with one noise map per step: they differ in how x_1..x_T are drawn.

Given any x at every level, z_i = (x_{i+1} - mean_i(x_i)) / std_i makes the stochastic sampler pass
through all of them: reconstruction is exact, however bad the model is.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import (
    Guidance,
    Positive,
    Steps,
    above,
    at_least,
    at_most,
    below,
    between,
)
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.parameterization import Grid, transition, whole_steps
from latentbench.sampling.loop import Intervention, Step, Term, generate, guided, predict
from latentbench.types import Batch, Capability, Edit, Latent, Space

Eta = Annotated[float, above(0), at_most(1)]  # stochasticity of the sampler
Skip = Annotated[int, between(0, 999)] | Annotated[float, at_least(0), below(1)]
ROWS = 512  # network rows a call while all timesteps are evaluated at once


class Residual(Intervention):
    """Adds what the last step's noise map means where that step has no noise (std 0)."""

    def __init__(self, residual: Tensor) -> None:
        self.residual = residual

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Add the residual at the clean end."""
        return x + self.residual if step.reaches == step.n else x


class NoiseMapEditor(Editor[DiffusionModel]):
    """Inverts into noise maps and decodes them, under another prompt to edit.

    The strength is lambda in c = (1 - lambda) c_source + lambda c_target, and the guidance moves
    with it from `guidance_source` to `guidance_target`: 0 is the exact reconstruction.

    Args:
        steps: sampling steps; default: the model's.
        eta: stochasticity of the sampler, above 0 and at most 1; one number, or one per step,
            noisiest first.
        skip: how many of the noisiest steps are left out, as a count (12) or as a share of the
            steps (0.3); larger stays closer to the input.
        guidance_source: guidance while inverting.
        guidance_target: guidance at strength 1.
        max_strength: largest lambda of a benchmark's curve.
    """

    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE_MAPS}),
        "edit": frozenset({Space.NOISE_MAPS, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        eta: Eta | Sequence[Eta] = 1.0,
        skip: Skip = 0.3,
        guidance_source: Guidance = 1.0,
        guidance_target: Guidance = 5.0,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.eta, self.skip = steps, eta, skip
        self.guidance_source, self.guidance_target = guidance_source, guidance_target
        self.max_strength = max_strength

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a skip that leaves no step, and as many etas as there are not steps."""
        if steps is not None:
            self.start(steps)

    @abstractmethod
    def draw_levels(
        self, grid: Grid, x0: Float[Tensor, "b ..."], batch: Batch, start: int
    ) -> Float[Tensor, "b l ..."]:
        """Return x at levels start..n, the last of them x0."""

    def invert(self, batch: Batch) -> Latent:
        """Return x at level `start` and the noise maps from there on, cached; see `decode`."""
        grid = self.model.grid(self.steps)
        start = self.start(grid.n)

        def make() -> dict[str, Tensor]:
            x = self.draw_levels(grid, self.model.encode(batch.images), batch, start)
            latent = Latent({Space.NOISE: x[:, 0]}, start, batch.prompts)
            terms = self._terms(self.model, latent, None, torch.zeros(1))
            maps = self._noise_maps(grid, x, terms, start)
            return {**latent.parts, Space.NOISE_MAPS: maps}

        found = self.cache.get_or_make("noise_maps", self._key(grid, batch, start), make)
        parts = {Space(name): part.to(self.model.device) for name, part in found.items()}
        return Latent(parts, start, batch.prompts)

    def _key(self, grid: Grid, batch: Batch, start: int) -> str:
        """Return a hash of all that a code depends on: the seed too, and no setting of an edit."""
        model, told = self.model, Latent({}, prompts=batch.prompts)
        source = {} if batch.prompts is None else model.condition_of(told).tensors
        return content_hash(
            f"{type(self).__module__}.{type(self).__qualname__}", self.version, self.streams.seed,
            model.fingerprint(), grid.timesteps, start, self.eta, self.guidance_source,
            batch.ids, batch.images, source, model.unconditional(len(batch)).tensors,
        )  # fmt: skip

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of the codes, under the prompts that they were made with."""
        return self._decode(latent, None, torch.zeros(1))[:, 0]

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the codes' images under prompts between source and target."""
        return self._decode(self.invert(batch), edit.target_prompts, strengths)

    def start(self, n: int) -> int:
        """Return the level of a sampler of n steps that the code starts at."""
        start = self.skip if isinstance(self.skip, int) else whole_steps(self.skip, n)
        if start >= n:
            raise BadInput(
                f"method.skip={self.skip} leaves out {start} of {n} sampling steps; leave out "
                f"{n - 1} or fewer, or raise method.steps"
            )
        if not isinstance(self.eta, float | int) and len(self.eta) != n:
            raise BadInput(
                f"method.eta has {len(self.eta)} values for {n} sampling steps; give one number, "
                f"or one a step"
            )
        return start

    def _decode(
        self, latent: Latent, target: tuple[str, ...] | None, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        terms = self._terms(self.model, latent, target, strengths)
        images = self._images(self.model, latent, terms, len(strengths))
        return images.unflatten(0, (len(latent), len(strengths)))

    def _images(
        self,
        model: DiffusionModel,
        latent: Latent,
        terms: tuple[Term, ...],
        times: int = 1,
        interventions: Sequence[Intervention] = (),
    ) -> Float[Tensor, "r 3 h w"]:
        """Return the images that a model makes of codes, of each code `times` with terms of own."""
        grid, maps = model.grid(self.steps), latent.parts[Space.NOISE_MAPS]
        # std of the last step is 0 where the clean end has sigma 0: its map is a plain residual
        last = maps[:, -1].repeat_interleave(times, 0)
        residual = [Residual(last)] if float(grid.sigma[-1]) == 0 else []
        z0 = generate(
            model,
            latent.parts[Space.NOISE].repeat_interleave(times, 0),
            terms,
            grid=grid,
            start=latent.start,
            eta=self.eta,
            noise=lambda i: maps[:, i - latent.start].repeat_interleave(times, 0),
            interventions=[*interventions, *residual],
        )
        return model.decode(z0)

    def _terms(
        self,
        model: DiffusionModel,
        latent: Latent,
        target: tuple[str, ...] | None,
        strengths: Float[Tensor, " s"],
    ) -> tuple[Term, ...]:
        """Return the guided condition of each image and strength, from its source to the target."""
        weight = strengths.repeat(len(latent))
        condition = model.condition_of(latent).repeat(len(strengths))
        if target is not None:
            goal = model.condition_of(replace(latent, prompts=target)).repeat(len(strengths))
            condition = condition.lerp(goal, weight)
        scale = self.guidance_source + weight * (self.guidance_target - self.guidance_source)
        return guided(condition, model.unconditional(len(weight)), scale.to(model.device))

    def _noise_maps(
        self, grid: Grid, x: Float[Tensor, "b l ..."], terms: tuple[Term, ...], start: int
    ) -> Float[Tensor, "b n ..."]:
        """Return z of each step, all timesteps of all images in as few network calls as fit."""
        x0, eps = self._predictions(grid, x, terms, start)
        levels = torch.arange(start, grid.n).repeat(len(x))
        mean, std = transition(grid, levels, x0.flatten(0, 1), eps.flatten(0, 1), self.eta)
        gap = (x[:, 1:] - self.higher_order(grid, x0, start)).flatten(0, 1) - mean
        z = torch.where(std > 0, gap / std.clamp(min=1e-30), gap)
        return z.reshape(x0.shape)

    def higher_order(
        self, grid: Grid, x0: Float[Tensor, "b n ..."], start: int
    ) -> Float[Tensor, "b n ..."] | float:
        """Return what the sampler adds to the mean of each step, from x0 as predicted before it."""
        del grid, x0, start
        return 0.0

    def _predictions(
        self, grid: Grid, x: Float[Tensor, "b l ..."], terms: tuple[Term, ...], start: int
    ) -> tuple[Float[Tensor, "b n ..."], Float[Tensor, "b n ..."]]:
        """Return (x0, eps) of all levels but the last."""
        b, steps = len(x), grid.n - start
        x0, eps = [], []
        for first in range(0, steps, max(1, ROWS // b)):
            index = torch.arange(first, min(first + max(1, ROWS // b), steps))
            repeated = tuple(
                Term(t.branch, t.condition.repeat(len(index)), _repeat(t.weight, len(index)))
                for t in terms
            )
            rows, levels = x[:, index].flatten(0, 1), (start + index).repeat(b)
            found = predict(self.model, rows, grid, levels, repeated)
            for parts, part in zip((x0, eps), found, strict=True):
                parts.append(part.unflatten(0, (b, len(index))))
        return torch.cat(x0, 1), torch.cat(eps, 1)


def _repeat(weight: float | Tensor, times: int) -> float | Tensor:
    return weight.repeat_interleave(times) if isinstance(weight, Tensor) else weight
