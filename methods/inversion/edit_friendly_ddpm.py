"""Edit-friendly DDPM noise space: every level is noised independently of the others."""

import torch
from jaxtyping import Float
from torch import Tensor

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
        eta: 1 as published; one number, or one per step, noisiest first.
        skip: how many of the noisiest steps are left out, as a count (the paper's 36 of 100) or as
            a share of the steps (0.36).
        guidance_source: guidance while inverting.
        guidance_target: guidance at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = EditFriendlyDDPM(skip=0.3)  # editor.decode(editor.invert(batch))
    """

    paper = "An Edit Friendly DDPM Noise Space: Inversion and Manipulations, section 3"
    version = 2

    def draw_levels(
        self, grid: Grid, x0: Float[Tensor, "b ..."], batch: Batch, start: int
    ) -> Float[Tensor, "b l ..."]:
        """Return x at levels start..n, each noised on its own."""
        shape = (grid.n - start, *x0.shape[1:])
        n_i = self.streams.normal("edit_friendly_ddpm", batch.ids, shape, x0.device)
        return draw_independently(grid, x0, n_i, start)


def draw_independently(
    grid: Grid, x0: Float[Tensor, "b ..."], noise: Float[Tensor, "b n ..."], start: int
) -> Float[Tensor, "b l ..."]:
    """Return x at levels start..n, each under a noise of its own, the last of them x0."""
    alpha, sigma = grid.levels(torch.arange(start, grid.n), x0)
    return torch.cat([alpha * x0[:, None] + sigma * noise, x0[:, None]], 1)
