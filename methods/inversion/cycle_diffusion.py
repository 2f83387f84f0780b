"""DPM-Encoder and CycleDiffusion: noise maps along one sampled chain of the forward process."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Steps
from latentbench.parameterization import Grid
from latentbench.types import Batch
from methods.inversion.noise_maps import Eta, NoiseMapEditor, Skip


class CycleDiffusion(NoiseMapEditor):
    """Noise maps of a chain: x_T ~ q(x_T | x_0), then x_{i-1} ~ q(x_{i-1} | x_i, x_0).

    Source: "Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion and
    Guidance", sections 3.1 (DPM-Encoder) and 3.2 (text editing). The code is close to N(0, I); its
    deviation measures the model's denoising error per level.
    Deviations: the chain needs no network, so the means of all timesteps are evaluated in one
    batch; one trial, never the best of many; the strength axis is that of `NoiseMapEditor`.

    Args:
        steps: sampling steps; default: the model's.
        eta: 0.1 as published; one number, or one per step, noisiest first.
        skip: how many of the noisiest steps are left out, as a count (12) or as a share of the
            steps (0.3).
        guidance_source: guidance while encoding.
        guidance_target: guidance at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = CycleDiffusion(eta=0.1)  # editor.decode(editor.invert(batch))
    """

    paper = "Unifying Diffusion Models' Latent Space, with Applications to CycleDiffusion, sec. 3"
    version = 2

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        eta: Eta | Sequence[Eta] = 0.1,
        skip: Skip = 0.3,
        guidance_source: Guidance = 1.0,
        guidance_target: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, eta=eta, skip=skip, guidance_source=guidance_source,
            guidance_target=guidance_target, max_strength=max_strength,
        )  # fmt: skip

    def draw_levels(
        self, grid: Grid, x0: Float[Tensor, "b ..."], batch: Batch, start: int
    ) -> Float[Tensor, "b l ..."]:
        """Return x at levels start..n along one chain of q(x_{i-1} | x_i, x_0)."""
        shape = (grid.n - start, *x0.shape[1:])
        noise = self.streams.normal("cycle_diffusion", batch.ids, shape, x0.device)
        alpha, sigma = grid.levels(start, x0)
        levels = [alpha * x0 + sigma * noise[:, 0]]
        for i in range(start, grid.n - 1):
            alpha, sigma = grid.levels(i, x0)
            r = (levels[-1] - alpha * x0) / sigma
            s = grid.noise_std(i, self.eta, x0)
            alpha, sigma = grid.levels(i + 1, x0)
            mean = alpha * x0 + (sigma**2 - s**2).clamp(min=0).sqrt() * r
            levels.append(mean + s * noise[:, i - start + 1])
        return torch.stack([*levels, x0], 1)
