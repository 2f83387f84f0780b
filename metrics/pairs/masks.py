"""Masks of local edits: 1 where the edit may change the image."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.types import Samples

GREY, BLACK = 0.0, -1.0  # what hidden pixels become, in [-1, 1]


def hide(
    images: Float[Tensor, "b s 3 h w"], where: Bool[Tensor, "b h w"], value: float
) -> Float[Tensor, "b s 3 h w"]:
    """Return images whose pixels are one value in the given places."""
    return torch.where(where[:, None, None], value, images)


def hidden_edit(samples: Samples, black: bool = False) -> Samples:
    """Return samples whose outputs and sources are mid grey, or black, inside the mask."""
    assert samples.masks is not None and samples.sources is not None
    inside, value = samples.masks > 0, BLACK if black else GREY
    sources = hide(samples.sources[:, None], inside, value)[:, 0]
    return replace(samples, outputs=hide(samples.outputs, inside, value), sources=sources)


def lacks_background(masks: Float[Tensor, "b h w"]) -> Bool[Tensor, " b"]:
    """Return whether a mask covers the whole image."""
    return masks.flatten(1).amin(1) > 0
