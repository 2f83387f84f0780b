"""`dataset=strips`: wide pictures of faces in a row, through the interface of every data set."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.bounds import between
from latentbench.data import faces, strips
from latentbench.data.dataset import Dataset
from latentbench.types import Batch, Capability, Description


class StripsDataset(Dataset):
    """Rows of procedural faces that share light, background, hats and shirts; see `strips`.

    Captions name what the faces share, and so do the factors.

    Args:
        size: pixels of the height; None is 64, and there is no other.
        width: pixels of the width; 64 gives the crops that ``faces_strips`` was trained on.

    Example:
        >>> StripsDataset(width=128).batch("test", [0]).images.shape
        torch.Size([1, 3, 64, 128])
    """

    factor_names = strips.GLOBALS
    things = tuple(name for name in strips.GLOBALS if name in faces.THINGS)
    member_factors = faces.FACTOR_NAMES
    pitch = strips.PITCH
    gives = frozenset({Capability.LABELS, Capability.PROMPTS, Capability.STRIPS})

    def __init__(
        self,
        *,
        size: Literal[64] | None = None,
        width: Annotated[int, between(16, 632)] = 256,  # strips.WIDEST
    ) -> None:
        self.image_size, self.width = size or faces.NATIVE_SIZE, width

    def size(self, split: str) -> int:
        """Return how many strips the split holds."""
        del split
        return strips.SPLIT_SIZE

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return strips with captions and the factors that all faces of one share."""
        known = self.describe(split, indices)
        images = strips.render(split, torch.as_tensor(list(indices)), self.width)
        return Batch(known.ids, images, known.prompts, known.factors)

    def describe(self, split: str, indices: Sequence[int]) -> Description:
        """Return ids, captions and shared factors; nothing is drawn."""
        shared = strips.shared_factors(split, torch.as_tensor(list(indices)))
        ids = tuple(f"{split}/{i}" for i in indices)
        return Description(ids, tuple(strips.caption(shared)), shared)

    def members(
        self, split: str, indices: Sequence[int]
    ) -> tuple[Float[Tensor, "b k f"], Int[Tensor, "b k"]]:
        """Return the factors of each strip's faces, and where their middles are."""
        shown = strips.row(split, torch.as_tensor(list(indices)), self.width)
        return shown.factors, shown.middles

    def render_members(self, factors: Float[Tensor, "b f"]) -> Float[Tensor, "b 3 h h"]:
        """Return faces with these factors, each alone in the middle of a square."""
        return faces.render(factors)

    def shared_captions(self, factors: Float[Tensor, "b g"]) -> tuple[str, ...]:
        """Return captions of strips whose faces share these factors, one word for each."""
        return tuple(strips.caption(factors))
