"""Images as published networks take them: 8 bits, PIL's resizing, a network's normalisation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation


def as_bytes(images: Float[Tensor, "*n 3 h w"]) -> UInt8[Tensor, "*n 3 h w"]:
    """Return images of [-1, 1] rounded to 8 bits, as a PNG file would hold them.

    Example:
        >>> as_bytes(torch.tensor([-1.0, 0.0, 1.0]).expand(3, 1, 3))[0, 0].tolist()
        [0, 128, 255]
    """
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def each_pil(
    images: UInt8[Tensor, "b 3 h w"], change: Callable[[Image.Image], Image.Image]
) -> UInt8[Tensor, "b 3 h2 w2"]:
    """Return what a function makes of each image."""
    arrays = [np.asarray(change(Image.fromarray(x))) for x in _channels_last(images)]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def squeeze_bicubic(images: UInt8[Tensor, "b 3 h w"], size: int) -> UInt8[Tensor, "b 3 s s"]:
    """Return images resized to a square by PIL's bicubic filter, whatever their shape."""
    return each_pil(images, lambda x: x.resize((size, size), Image.Resampling.BICUBIC))


def normalised(
    images: Float[Tensor, "b 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "b 3 h w"]:
    """Return (image - mean) / std, by channel."""
    low, width = (torch.tensor(v).to(images).reshape(3, 1, 1) for v in (mean, std))
    return (images - low) / width


def _channels_last(images: UInt8[Tensor, "b 3 h w"]) -> np.ndarray:
    return images.permute(0, 2, 3, 1).cpu().numpy()
