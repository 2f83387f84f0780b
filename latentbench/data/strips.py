"""Wide pictures of procedural faces in a row, each a deterministic function of (split, index).

The faces of a strip stand `PITCH` pixels apart, each in front of the one to its left, and go on
beyond both ends. The factors of `GLOBALS` are one and the same for all of them: the light, the
background, hats for all or none, the shirt. All other factors are each face's own. Where the row
begins is another uniform number of the strip, so that a strip of 64 pixels is what a window of 64
pixels at a random place of a longer one shows.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.data import faces

PITCH = 48  # pixels from face to face
GLOBALS = ("light", "background", "hat", "shirt")
LOCALS = tuple(name for name in faces.FACTOR_NAMES if name not in GLOBALS)
FACES = 16  # faces of the split that make a strip: the last gives what all share
SPLIT_SIZE = faces.SPLIT_SIZE // FACES
REACH = 40  # pixels from a face's middle to where nothing of it is seen
WIDEST = (FACES - 2) * PITCH - REACH
_COLUMNS = [faces.factor_index(name) for name in GLOBALS]


@dataclass(frozen=True)
class Row:
    """The faces of each strip, from left to right; some are outside of the picture.

    Attributes:
        factors: Factors in [0, 1], in the order of `faces.FACTORS`.
        middles: Where each face's middle is: pixels from the left end.
    """

    factors: Float[Tensor, "b k f"]
    middles: Int[Tensor, "b k"]


def windows_in(width: int, side: int, pitch: int) -> int:
    """How many windows of one thing each always fit into a strip, wherever its row begins.

    Args:
        width: Pixels of the strip.
        side: Pixels of a window's side.
        pitch: Pixels from thing to thing.

    Example:
        >>> windows_in(256, 64, 48), windows_in(160, 64, 48), windows_in(64, 64, 48)
        (4, 2, 1)
    """
    return max(1, (width - side) // pitch)


def shared_factors(split: str, indices: Int[Tensor, " b"]) -> Float[Tensor, "b g"]:
    """Factors that all faces of a strip share, in the order of `GLOBALS`.

    Args:
        split: One of `faces.SPLITS`.
        indices: int tensor [b], each in 0..2**24-1.

    Example:
        >>> shared_factors("test", torch.arange(3)).shape
        torch.Size([3, 4])
    """
    return _own(split, indices)[:, _COLUMNS]


def _own(split: str, indices: Int[Tensor, " b"]) -> Float[Tensor, "b f"]:
    """Factors of the face that gives a strip what is not of a single face."""
    return faces.sample_factors(split, indices * FACES + FACES - 1)


def row(split: str, indices: Int[Tensor, " b"], width: int) -> Row:
    """Faces of strips that may show in a picture of this width.

    Args:
        split: One of `faces.SPLITS`.
        indices: int tensor [b], each in 0..2**24-1.
        width: Pixels.

    Raises:
        ValueError: A width that a strip has not enough faces for.

    Example:
        >>> row("test", torch.arange(3), width=256).middles.shape
        torch.Size([3, 8])
    """
    if not 1 <= width <= WIDEST:
        raise ValueError(f"width must lie in 1..{WIDEST} pixels, got {width}")
    own = _own(split, indices)
    count = -(-(width + REACH + PITCH) // PITCH)
    places = torch.arange(count)
    factors = faces.sample_factors(split, (indices[:, None] * FACES + places).flatten())
    factors = factors.unflatten(0, (len(indices), count))
    factors[..., _COLUMNS] = own[:, None, _COLUMNS]
    first = (own[:, faces.factor_index("face_width")] * PITCH).long().clamp_max(PITCH - 1) - PITCH
    return Row(factors, first[:, None] + PITCH * places)


def caption(shared: Float[Tensor, "b g"]) -> list[str]:
    """One word for each factor that the faces of a strip share, in the order of `GLOBALS`.

    Example:
        >>> caption(torch.zeros(1, 4))
        ['leftlit crimson bareheaded white']
    """
    factors = [faces.FACTORS[column] for column in _COLUMNS]
    return [
        " ".join(factor.word(value) for factor, value in zip(factors, values, strict=True))
        for values in shared.tolist()
    ]


def draw(shown: Row, width: int) -> Float[Tensor, "b 3 64 w"]:
    """Draw strips.

    Args:
        shown: Their faces.
        width: Pixels.

    Returns:
        float32 RGB in [-1, 1].

    Example:
        >>> draw(row("test", torch.arange(2), width=64), width=64).shape
        torch.Size([2, 3, 64, 64])
    """
    b, count = shown.middles.shape
    colours, left = faces.cutouts(shown.factors.flatten(0, 1), 2 * REACH)
    colours, left = colours.unflatten(0, (b, count)), left.unflatten(0, (b, count))
    wall = faces.backgrounds(shown.factors[:, 0]).expand(-1, -1, -1, width + 4 * REACH)
    image = wall.clone()  # with a margin of two reaches on both sides
    for strip, middles in enumerate(shown.middles.tolist()):
        for face, middle in enumerate(middles):
            if -REACH < middle < width + REACH:
                columns = slice(middle + REACH, middle + 3 * REACH)
                image[strip, :, :, columns].mul_(left[strip, face]).add_(colours[strip, face])
    return image[..., 2 * REACH : -2 * REACH].clamp(0, 1) * 2 - 1


def render(split: str, indices: Int[Tensor, " b"], width: int) -> Float[Tensor, "b 3 64 w"]:
    """Draw the strips of these indices; see `draw`."""
    return draw(row(split, indices, width), width)
