"""`dataset=celeba_hq`: CelebA-HQ with 40 attributes and part masks, in CelebAMask-HQ's layout."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from latentbench.data.folder import ImageFolder
from latentbench.errors import BadInput
from latentbench.types import Batch, Capability

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
PARTS = (
    "skin", "neck", "hat", "eye_g", "hair", "ear_r", "neck_l", "cloth", "l_eye", "r_eye",
    "l_brow", "r_brow", "nose", "l_ear", "r_ear", "mouth", "u_lip", "l_lip",
)  # fmt: skip


class CelebAHQ(ImageFolder):
    """30,000 faces of 1024 px: `CelebA-HQ-img/K.jpg`, a table of attributes, masks of 512 px.

    Source: "MaskGAN: Towards Diverse and Interactive Facial Image Manipulation" (CelebAMask-HQ).
    Attributes of -1 and 1 become factors of 0 and 1 under their own names. Masks are given where
    `CelebAMask-HQ-mask-anno` is there; a part without a file is not in the picture.

    Args:
        path: the folder CelebAMask-HQ.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.

    Example:
        ``CelebAHQ(path="/data/CelebAMask-HQ", limit=500)``
    """

    gives = frozenset({Capability.LABELS})

    def __init__(self, *, path: str, size: int | None = None, limit: int | None = None) -> None:
        folder = Path(path).resolve()
        super().__init__(folder, _attributes(folder / ATTRIBUTES), size, limit)
        if (folder / MASKS).is_dir():
            self.gives |= {Capability.PART_MASKS}

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return faces with factors and, where there are masks, part masks."""
        batch = super().batch(split, indices)
        if Capability.PART_MASKS not in self.gives:
            return batch
        return replace(batch, masks=_Masks(self, batch.ids))


def _attributes(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BadInput(f"no file {path}; give dataset.path=/data/CelebAMask-HQ, unpacked")
    rows = pd.read_csv(path, sep=r"\s+", skiprows=1)  # the first line is a count
    if not rows.isin((-1, 1)).all(axis=None):
        raise BadInput(f"{path} must hold -1 or 1 for each image and attribute")
    return ((rows + 1) // 2).set_index(f"{IMAGES}/" + rows.index.astype(str))


class _Masks(Mapping[str, Float[Tensor, "b h w"]]):
    """Part masks, read when asked for."""

    def __init__(self, data: CelebAHQ, ids: Sequence[str]) -> None:
        self._data, self._ids = data, ids

    def __getitem__(self, part: str) -> Float[Tensor, "b h w"]:
        if part not in PARTS:
            raise KeyError(part)
        return torch.stack([self._mask(part, int(Path(name).stem)) for name in self._ids])

    def _mask(self, part: str, number: int) -> Float[Tensor, "h w"]:
        path = self._data.path / MASKS / str(number // 2000) / f"{number:05d}_{part}.png"
        image = Image.open(path).convert("L") if path.is_file() else Image.new("L", (512, 512))
        with image:
            fitted = self._data.fitted(image, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(fitted) > 127).float()

    def __iter__(self) -> Iterator[str]:
        return iter(PARTS)

    def __len__(self) -> int:
        return len(PARTS)
