"""Edit-friendly DDPM noise space: every level is noised independently of the others."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Steps, above, at_least, at_most, below
from latentbench.parameterization import Grid
from latentbench.types import Batch
from methods.inversion.noise_maps import NoiseMapEditor


class EditFriendlyDDPM(NoiseMapEditor):
    """Noise maps of levels drawn independently: x_i = alpha_i x_0 + sigma_i n_i, fresh n_i each.

    Source: "An Edit Friendly DDPM Noise Space: Inversion and Manipulations", section 3. That
    independence is the whole idea: the maps have variance above 1 and neighbours anticorrelate,
    so the image's structure is imprinted in them.
    Deviations: the last map is kept (the original sets it to zero), all timesteps are evaluated in
    one batch, and the strength axis is that of `NoiseMapEditor`.

    Args:
        steps: sampling steps; default: the model's.
        eta: 1 as published.
        skip: share of the noisiest steps left out (36 of 100 in the paper).
        guidance_source: guidance while inverting.
        guidance_target: guidance at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = EditFriendlyDDPM(skip=0.3)  # editor.decode(editor.invert(batch))
    """

    paper = "An Edit Friendly DDPM Noise Space: Inversion and Manipulations, section 3"

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        eta: Annotated[float, above(0), at_most(1)] = 1.0,
        skip: Annotated[float, at_least(0), below(1)] = 0.3,
        guidance_source: Guidance = 1.0,
        guidance_target: Guidance = 5.0,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps,
            eta=eta,
            skip=skip,
            guidance_source=guidance_source,
            guidance_target=guidance_target,
            max_strength=max_strength,
        )

    def draw_levels(
        self, grid: Grid, x0: Float[Tensor, "b ..."], batch: Batch, start: int
    ) -> Float[Tensor, "b l ..."]:
        """Return x at levels start..n, each noised on its own."""
        shape = (grid.n - start, *x0.shape[1:])
        n_i = self.streams.normal("edit_friendly_ddpm", batch.ids, shape, x0.device)
        alpha, sigma = grid.levels(torch.arange(start, grid.n), x0)
        return torch.cat([alpha * x0[:, None] + sigma * n_i, x0[:, None]], 1)
