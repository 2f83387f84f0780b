"""FlowEdit: a path from the image to its edit, along differences of two velocities."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Steps, above, at_most, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import Term, guided, predict
from latentbench.types import Batch, Capability, Edit, Space

Last = Annotated[int, between(1, 1000)] | Annotated[float, above(0), at_most(1)]


class FlowEdit(Editor[DiffusionModel]):
    """Moves the image itself by the difference of two velocities, without inversion.

    Source: "FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models", algorithm
    1. In each of the last n_max steps, with t the level and fresh noise n:
    z_source = (1 - t) x_source + t n, z_target = z_edit + z_source - x_source, and
    z_edit += (t' - t) mean over draws of [v(z_target; target) - v(z_source; source)].

    Deviations: another denoiser than a flow is taken in the coordinates in which it is one,
    x / (alpha + sigma) at t = sigma / (alpha + sigma); noise is drawn per image; source and target
    share one network call, and strengths share the source; the last n_min steps of plain sampling
    are not here (0 in the published settings). The strength lambda moves the target's condition
    from the source's caption to the target's, and its guidance from `guidance_source` to
    `guidance_target`, so that 0 is the image.

    Args:
        steps: sampling steps; default: the model's.
        n_max: how many of the last steps are made, as a count (the paper's 33 of 50 for Stable
            Diffusion 3, 24 of 28 for FLUX) or as a share of the steps (0.66).
        draws: noises per step whose differences are averaged.
        guidance_source: guidance scale of the source.
        guidance_target: guidance scale of the target at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = FlowEdit(n_max=0.66, draws=1)  # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "FlowEdit: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models, algorithm 1"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        n_max: Last = 0.66,
        draws: Annotated[int, between(1, 1000)] = 1,
        guidance_source: Guidance = 1.5,
        guidance_target: Guidance = 5.0,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.n_max, self.draws = steps, n_max, draws
        self.guidance_source, self.guidance_target = guidance_source, guidance_target
        self.max_strength = max_strength

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more steps than there are, and a share of less than one."""
        if steps is not None:
            self._made(steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the edited images."""
        model, grid, b, k = self.model, self.model.grid(self.steps), len(batch), self.draws
        start = grid.n - self._made(grid.n)
        weight = torch.cat([torch.zeros(1), strengths])  # the source is a target of strength 0
        x = model.encode(batch.images)[:, None]
        n = self.streams.normal(
            "flow_edit", batch.ids, (grid.n - start, k, *x.shape[2:]), model.device
        )
        terms = self._terms(batch, edit, weight)
        z = x.expand(-1, len(weight), *x.shape[2:])
        for i in range(start, grid.n):
            t, t_next = (float(grid.sigma[j] / (grid.alpha[j] + grid.sigma[j])) for j in (i, i + 1))
            z_source = (1 - t) * x[None] + t * n[:, i - start].transpose(0, 1)[:, :, None]
            z_t = (z[None] + z_source - x[None]).flatten(0, 2)
            scale = float(grid.alpha[i] + grid.sigma[i])
            x0, eps = predict(model, scale * z_t, grid, i, terms)
            v = (eps - x0).unflatten(0, (k, b, len(weight)))
            z = z + (t_next - t) * (v - v[:, :, :1]).mean(0)
        return model.decode(z[:, 1:].flatten(0, 1)).unflatten(0, (b, len(strengths)))

    def _terms(self, batch: Batch, edit: Edit, weight: Float[Tensor, " s1"]) -> tuple[Term, ...]:
        """Return the guided conditions of rows (draw, image, strength)."""
        model, b, s = self.model, len(batch), len(weight)
        source, target = (
            model.condition(prompts, b).repeat(s)
            for prompts in (batch.prompts, edit.target_prompts)
        )
        told = Condition.concat([source.lerp(target, weight.repeat(b))] * self.draws)
        scale = self.guidance_source + weight * (self.guidance_target - self.guidance_source)
        rows = self.draws * b
        return guided(told, model.unconditional(rows * s), scale.repeat(rows).to(model.device))

    def _made(self, n: int) -> int:
        """Return how many of a sampler's n steps are made."""
        made = self.n_max if isinstance(self.n_max, int) else whole_steps(self.n_max, n)
        if not 1 <= made <= n:
            raise BadInput(
                f"method.n_max={self.n_max} is {made} of {n} sampling steps; ask for 1 to {n}, or "
                f"raise method.steps"
            )
        return made
