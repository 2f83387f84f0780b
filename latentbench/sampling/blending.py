"""Local edits by blending: outside a mask, the source's own latents at every level."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from latentbench.sampling.loop import Intervention, Step, noise_to_level


class KeepOutside(Intervention):
    """Puts the source, noised to the level that a step reached, back outside the mask.

    Args:
        x0: clean latents of the source.
        noise: the one noise that the source is noised with at every level.
        mask: 1 where the image may change, in the latents' resolution; see `latent_mask`.
    """

    def __init__(
        self,
        x0: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b c h w"],
        mask: Float[Tensor, "b 1 h w"],
    ) -> None:
        self.x0, self.noise, self.mask = x0, noise, mask

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Return x inside the mask; outside the noised source, the source itself at the end."""
        clean = step.reaches == step.n
        kept = self.x0 if clean else noise_to_level(step.grid, self.x0, self.noise, step.reaches)
        return torch.where(self.mask > 0, x, kept)


class KeepTrajectory(Intervention):
    """Puts the source, at the level that a step reached on its inversion, back outside the mask.

    Args:
        levels: x at all levels of the inversion; see `latentbench.sampling.inversion`.
        mask: 1 where the image may change, in the latents' resolution; see `latent_mask`.
    """

    def __init__(self, levels: Float[Tensor, "b l c h w"], mask: Float[Tensor, "b 1 h w"]) -> None:
        self.levels, self.mask = levels, mask

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Return x inside the mask, outside it the inversion at this level."""
        return torch.where(self.mask > 0, x, self.levels[:, step.reaches])


def latent_mask(
    mask: Float[Tensor, "b h w"], latent: Float[Tensor, "b c hl wl"]
) -> Float[Tensor, "b 1 hl wl"]:
    """Return a mask in the latents' resolution: a cell may change as soon as one of its pixels may.

    Example:
        >>> mask = torch.zeros(1, 4, 4)
        >>> mask[0, 0, 1] = 1
        >>> latent_mask(mask, torch.zeros(1, 4, 2, 2))[0, 0].tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    return adaptive_max_pool2d(mask[:, None].to(latent), latent.shape[-2:])
