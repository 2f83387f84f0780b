"""Images a little worse than rendered ones: what the heads of judges are trained to read through.

A judge is asked about outputs of models: softer, flatter, darker, coarser, grainier than any
rendered face. Only what reads factors and identity may be trained on these: features that are
trained to overlook a degradation make a Frechet distance that is blind to it.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]
Amount = Float[Tensor, "b 1 1 1"]
LARGEST_BLUR = 2.0  # pixels of 64
LOWEST_CONTRAST = 0.4
STRONGEST_GRAIN = 0.1  # standard deviation, of [-1, 1]
_REACH = 6  # pixels each side of a blur's kernel


def blur(images: Images, amount: Amount) -> Images:
    """Gaussian blur, of up to 2 pixels' standard deviation in an image of 64."""
    sigma = 0.05 + (LARGEST_BLUR - 0.05) * amount[:, 0, 0] * images.shape[-1] / 64
    reach = torch.arange(-_REACH, _REACH + 1, device=images.device)
    kernels = torch.exp(-0.5 * (reach / sigma).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    planes = images.flatten(0, 1)[None]
    rows = F.pad(planes, (_REACH, _REACH, 0, 0), mode="replicate")
    rows = F.conv2d(rows, kernels[:, None, None, :], groups=len(kernels))
    columns = F.pad(rows, (0, 0, _REACH, _REACH), mode="replicate")
    return F.conv2d(columns, kernels[:, None, :, None], groups=len(kernels))[0].view_as(images)


def contrast(images: Images, amount: Amount) -> Images:
    """Contrast about the image's own mean, down to .4 of what it was."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 - (1 - LOWEST_CONTRAST) * amount)


def darken(images: Images, amount: Amount) -> Images:
    """Darker, by up to .2 of [-1, 1]."""
    return images - 0.2 * amount


def lighten(images: Images, amount: Amount) -> Images:
    """Lighter, by up to .2 of [-1, 1]."""
    return images + 0.2 * amount


def downsample(images: Images, amount: Amount) -> Images:
    """A mixture with the image at a quarter of its size, enlarged again."""
    coarse = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4.0, mode="bilinear")
    return images + 0.7 * amount * (coarse - images)


def quantise(images: Images, amount: Amount) -> Images:
    """Rounding of the cosine coefficients of blocks of 8x8 pixels, as JPEG does (ITU-T T.81).

    The step rises with frequency, up to about JPEG's standard table for luminance.
    """
    count, line = images.shape[-1] // 8, torch.arange(8, device=images.device)
    basis = torch.cos((line + 0.5) * line[:, None] * torch.pi / 8) / 2
    basis[0] /= 2**0.5
    blocks = images.unflatten(-1, (count, 8)).unflatten(-3, (count, 8)).transpose(-2, -3)
    steps = 0.06 * (1 + line[:, None] + line) * amount[..., None, None].clamp_min(1e-3)
    rounded = (basis @ blocks @ basis.T / steps).round() * steps
    return (basis.T @ rounded @ basis).transpose(-2, -3).flatten(-2).flatten(-3, -2)


def warm(images: Images, amount: Amount) -> Images:
    """Red up and blue down, by up to .1 of [-1, 1]."""
    return images + 0.1 * amount * images.new_tensor([1.0, 0.0, -1.0])[:, None, None]


def cool(images: Images, amount: Amount) -> Images:
    """Red down and blue up, by up to .1 of [-1, 1]."""
    return warm(images, -amount)


DEGRADATIONS: dict[str, Callable[[Images, Amount], Images]] = {
    "blur": blur, "contrast": contrast, "darken": darken, "lighten": lighten,
    "downsample": downsample, "quantise": quantise, "warm": warm, "cool": cool,
}  # fmt: skip


def grain(images: Images, amount: Amount, generator: torch.Generator) -> Images:
    """White noise, of up to .1 standard deviation in [-1, 1]."""
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return images + STRONGEST_GRAIN * amount * noise


def degraded(
    images: Float[Tensor, "b 3 h w"],
    probability: float,
    generator: torch.Generator,
    grain_probability: float = 0.0,
) -> Float[Tensor, "b 3 h w"]:
    """Each image degraded in some ways or none.

    Args:
        images: RGB in [-1, 1], square, of a multiple of 8 pixels.
        probability: of each of ``DEGRADATIONS``, for each image on its own; they add up.
        generator: CPU generator that draws which images are degraded, and by how much: uniformly
            from nothing to the full amount.
        grain_probability: of grain on top, for each image.

    Returns:
        Images in [-1, 1].

    Example:
        >>> degraded(torch.zeros(2, 3, 64, 64), 0.1, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 64, 64])
    """
    ways = [(probability, worsen) for worsen in DEGRADATIONS.values()]
    if grain_probability:
        ways.append((grain_probability, partial(grain, generator=generator)))
    images = images.clone()
    for likely, worsen in ways:
        draws = torch.rand(2, len(images), generator=generator).to(images.device)
        rows = (draws[0] < likely).nonzero()[:, 0]
        if len(rows):
            images[rows] = worsen(images[rows], draws[1, rows, None, None, None])
    return images.clamp(-1, 1)
