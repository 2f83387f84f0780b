"""Small convolutional networks between an image and a vector: what vector codes are made by."""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GROUPS = 8


class _Down(nn.Module):
    """Halves the resolution: two normalised convolutions and a pooled shortcut."""

    def __init__(self, before: int, after: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, before) if norm else nn.Identity()
        self.norm_2 = nn.GroupNorm(GROUPS, after) if norm else nn.Identity()
        self.down = nn.Conv2d(before, after, 3, 2, 1)
        self.same = nn.Conv2d(after, after, 3, 1, 1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = self.same(F.silu(self.norm_2(self.down(F.silu(self.norm(x))))))
        return (y + self.shortcut(F.avg_pool2d(x, 2))) * 2**-0.5


class ImageEncoder(nn.Module):
    """Image -> vector: residual blocks that halve the resolution, then a linear layer.

    Args:
        image_size: pixels per side.
        channels: width of each block; the last map has ``image_size / 2**len(channels)`` pixels.
        out: length of the vector.
        norm: group normalisation inside the blocks.
    """

    def __init__(
        self, image_size: int, channels: Sequence[int], out: int, norm: bool = True
    ) -> None:
        super().__init__()
        widths = [channels[0], *channels]
        self.stem = nn.Conv2d(3, channels[0], 3, 1, 1)
        self.blocks = nn.Sequential(*(_Down(a, b, norm) for a, b in itertools.pairwise(widths)))
        side = image_size // 2 ** len(channels)
        self.head = nn.Linear(channels[-1] * side * side, out)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the vectors."""
        return self.head(F.silu(self.blocks(self.stem(images))).flatten(1))


class _Up(nn.Module):
    """Doubles the resolution: two normalised convolutions and an upsampled shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm, self.norm_2 = nn.GroupNorm(GROUPS, before), nn.GroupNorm(GROUPS, after)
        self.up = nn.Conv2d(before, after, 3, 1, 1)
        self.same = nn.Conv2d(after, after, 3, 1, 1)
        self.shortcut = nn.Conv2d(before, after, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        y = F.interpolate(self.up(F.silu(self.norm(x))), scale_factor=2.0, mode="nearest")
        y = self.same(F.silu(self.norm_2(y)))
        return (y + F.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")) * 2**-0.5


class ImageDecoder(nn.Module):
    """Vector -> image: the encoder's mirror image.

    Args:
        image_size: pixels per side.
        channels: width of each block, fine to coarse, as in `ImageEncoder`.
        code: length of the vector.
    """

    def __init__(self, image_size: int, channels: Sequence[int], code: int) -> None:
        super().__init__()
        widths = [channels[0], *channels][::-1]
        side = image_size // 2 ** len(channels)
        self.shape = (widths[0], side, side)
        self.stem = nn.Linear(code, widths[0] * side * side)
        self.blocks = nn.Sequential(*(_Up(a, b) for a, b in itertools.pairwise(widths)))
        self.head = nn.Sequential(
            nn.GroupNorm(GROUPS, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 3, 3, 1, 1)
        )

    def forward(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images, not clamped."""
        return self.head(self.blocks(self.stem(code).unflatten(1, self.shape)))
