"""Masks of what an edit changes."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

VISIBLE = 2 / 255  # change of a value in [0, 1] above which a pixel belongs to the mask


def changed(
    before: Float[Tensor, "b 3 h w"], after: Float[Tensor, "b 3 h w"], dilate: int
) -> Float[Tensor, "b h w"]:
    """Return 1 where two images in [-1, 1] differ visibly, grown by `dilate` pixels; else 0.

    Example:
        >>> import torch
        >>> after = torch.zeros(1, 3, 5, 5)
        >>> after[0, 1, 2, 2] = 1
        >>> int(changed(torch.zeros_like(after), after, dilate=1).sum())
        9
    """
    differs = ((after - before).abs().amax(1, keepdim=True) / 2 > VISIBLE).float()
    return max_pool2d(differs, 2 * dilate + 1, stride=1, padding=dilate)[:, 0]
