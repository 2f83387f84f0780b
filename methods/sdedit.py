"""SDEdit: noise the image part of the way, denoise under the target condition."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.models.base import DiffusionModel
from latentbench.sampling import Noise, generate, guided, noise_to_level
from latentbench.types import Batch, Edit, Space


class SDEdit(Editor):
    """x = alpha_k x_0 + sigma_k n at k = floor(strength x steps) steps from the end, then denoise.

    Source: "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations",
    section 3, with the target prompt as condition. Needs nothing but a denoiser: the floor that
    every inversion method must beat. Deviations: deterministic by default (the paper's sampler is
    ancestral: eta=1); one pass (the paper repeats three).

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale towards the target prompt.
        eta: stochasticity of the sampler.
        max_strength: largest strength of a benchmark's curve; 1 starts from pure noise.

    Example:
        >>> editor = SDEdit(guidance=3.0)  # editor.edit(batch, edit, torch.tensor([0.4, 0.8]))
    """

    paper = "SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, 3"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[str]]] = {"edit": frozenset({"prompts"})}
    model: DiffusionModel

    def __init__(
        self,
        *,
        steps: int | None = None,
        guidance: float = 3.0,
        eta: float = 0.0,
        max_strength: float = 1.0,
    ) -> None:
        if max_strength > 1:
            raise BadInput(f"max_strength is a share of the steps, at most 1, got {max_strength}")
        self.steps, self.guidance, self.eta = steps, guidance, eta
        self.max_strength = max_strength

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return one image per strength; strength 0 is decode(encode(image))."""
        x0 = self.model.encode(batch.images)
        return torch.stack([self._denoise(x0, batch, edit, float(s)) for s in strengths], 1)

    def _denoise(self, x0: Tensor, batch: Batch, edit: Edit, strength: float) -> Tensor:
        model, grid, b = self.model, self.model.grid(self.steps), len(batch)
        k = int(strength * grid.n + 1e-6)
        if k == 0 and strength > 0:
            raise BadInput(f"strength {strength:g} is 0 of {grid.n} steps; use {1 / grid.n:g} up")
        noise = self._noise(batch, x0, grid.n)
        terms = guided(
            model.condition(edit.target_prompts, b), model.condition(None, b), self.guidance
        )
        x = noise_to_level(grid, x0, noise(-1), grid.n - k) if k else x0
        return model.decode(
            generate(model, x, terms, grid=grid, start=grid.n - k, eta=self.eta, noise=noise)
        )

    def _noise(self, batch: Batch, x0: Tensor, n: int) -> Noise:
        """Return the noise of each step, and of the start as number -1: one draw per image."""
        shape = (n + 1 if self.eta > 0 else 1, *x0.shape[1:])
        draws = self.streams.normal("sdedit", batch.ids, shape, x0.device)
        return lambda i: draws[:, i + 1]
