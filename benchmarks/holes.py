"""Holes in images: where they are, and what an image looks like without what was there."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

SHORTEST, LONGEST = 1 / 5, 1 / 2  # sides of a box, as shares of the image's
VERTICES, THINNEST, THICKEST = 5, 1 / 32, 1 / 12  # of a stroke; half of its width, as a share


def box(size: int, generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Return 1 inside a random rectangle, whose sides are 1/5 to 1/2 of the image's.

    Source: "Blended Latent Diffusion", its protocol of quantitative comparison.

    Example:
        >>> mask = box(20, torch.Generator().manual_seed(0))
        >>> 16 <= int(mask.sum()) <= 100
        True
    """
    mask = torch.zeros(size, size)
    (h, w), (top, left) = (torch.rand(2, generator=generator).tolist() for _ in range(2))
    high, wide = (round(size * (SHORTEST + (LONGEST - SHORTEST) * share)) for share in (h, w))
    y, x = round(top * (size - high)), round(left * (size - wide))
    mask[y : y + high, x : x + wide] = 1
    return mask


def stroke(size: int, generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Return 1 along a random bent line with round ends, as a brush draws it.

    Source: Yu et al., "Free-Form Image Inpainting with Gated Convolution", its free-form masks:
    joined segments of random angle and length. Deviation: one stroke of one width.

    Example:
        >>> mask = stroke(20, torch.Generator().manual_seed(0))
        >>> sorted(set(mask.flatten().tolist()))
        [0.0, 1.0]
    """
    start, turn, steps, width = (torch.rand(n, generator=generator) for n in (2, 1, VERTICES, 1))
    angles = 2 * math.pi * (turn + torch.randn(VERTICES, generator=generator).cumsum(0) / 6)
    moves = (0.1 + 0.2 * steps)[:, None] * torch.stack([angles.sin(), angles.cos()], 1)
    points = torch.cat([start[None], start + moves.cumsum(0)]).clamp(0.05, 0.95)
    line = (torch.arange(size) + 0.5) / size
    places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)[..., None, :]
    along = points[1:] - points[:-1]
    offset = places - points[:-1]
    share = ((offset * along).sum(-1) / along.square().sum(-1).clamp_min(1e-12)).clamp(0, 1)
    distance = (offset - share[..., None] * along).norm(dim=-1).amin(-1)
    return (distance < THINNEST + (THICKEST - THINNEST) * width).float()


def grown(masks: Float[Tensor, "b h w"], pixels: int) -> Float[Tensor, "b h w"]:
    """Return masks grown by some pixels in each direction."""
    return max_pool2d(masks[:, None], 2 * pixels + 1, stride=1, padding=pixels)[:, 0]


def filled(
    images: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "b h w"]
) -> Float[Tensor, "b 3 h w"]:
    """Return images whose holes are a smooth continuation of what is around them.

    Averages of known pixels at halved resolutions, then bilinear interpolation back: what an image
    says of a hole without any knowledge of images. An image that is all hole becomes mid grey.

    Source: Gortler et al., "The Lumigraph", its pull-push algorithm.

    Args:
        images: in [-1, 1].
        masks: 1 inside the hole.

    Example:
        >>> masks = torch.zeros(1, 8, 8)
        >>> masks[0, 2:5, 3:7] = 1
        >>> bool((filled(torch.full((1, 3, 8, 8), 0.5), masks) - 0.5).abs().max() < 1e-6)
        True
    """
    known = 1 - masks[:, None]
    sums, weights = [images * known], [known]
    while max(sums[-1].shape[-2:]) > 1:
        sums.append(avg_pool2d(sums[-1], 2, ceil_mode=True))
        weights.append(avg_pool2d(weights[-1], 2, ceil_mode=True))
    guess = sums[-1] / weights[-1].clamp_min(1e-12)  # the mean of what is known
    for total, weight in zip(reversed(sums), reversed(weights), strict=True):
        h, w = total.shape[-2:]
        guess = interpolate(guess, scale_factor=2, mode="bilinear", align_corners=False)
        guess, colour = guess[..., :h, :w], total / weight.clamp_min(1e-12)
        guess = torch.where(weight > 0, weight * colour + (1 - weight) * guess, guess)
    return torch.where(known > 0, images, guess)
