"""`dataset=celeba_hq`: CelebA-HQ with 40 attributes and part masks, in CelebAMask-HQ's layout."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from latentbench.bounds import Count, Name, Size
from latentbench.content import content_hash
from latentbench.data.decoding import decode_mask, header
from latentbench.data.faults import refuse
from latentbench.data.folder import ImageFolder
from latentbench.data.sources import Files, read_again, stamp
from latentbench.data.tabular import utf8
from latentbench.errors import BadInput
from latentbench.paths import user_path
from latentbench.types import Batch, Capability

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
SIDE = 512  # pixels of a mask
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
        links: follow links that lead out of the folder.

    Raises:
        BadInput: lines of the table that cannot be used, or masks that cannot be read or are not
            square: all of them, by name.

    Example:
        ``CelebAHQ(path="/data/CelebAMask-HQ", limit=500)``
    """

    gives = frozenset({Capability.LABELS})
    parts = PARTS

    def __init__(
        self,
        *,
        path: Name,
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        folder = user_path(path, "dataset.path").resolve()
        super().__init__(folder, _attributes(folder / ATTRIBUTES), size, limit, links)
        self._masks: Mapping[str, str] = {}  # sha256 by name
        if (folder / MASKS).is_dir():
            self.gives |= {Capability.PART_MASKS}
            self._mask_files = self._find_masks()
            self._masks = self._checked_masks()

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return faces with factors and, where there are masks, part masks."""
        batch = super().batch(split, indices)
        if Capability.PART_MASKS not in self.gives:
            return batch
        return replace(batch, masks=_Masks(self, batch.ids))

    def fingerprint(self) -> str:
        """Return a hash of images, attributes and masks."""
        return content_hash(super().fingerprint(), sorted(self._masks.items()))

    def mask(self, image: str, part: str) -> Float[Tensor, "h w"]:
        """Return one part of an image as a mask; empty where it has no file."""
        name, mask = _mask_name(image, part), Image.new("L", (SIDE, SIDE))
        if name in self._masks:
            mask = read_again(self._mask_files, name, self._masks[name], decode_mask)
        fitted = self.fitted(mask, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(fitted) > 127).float()

    def _find_masks(self) -> Files:
        """Return the masks of the images in use."""
        wanted = (_mask_name(image, part) for image in self._rows.index for part in PARTS)
        names = [name for name in wanted if (self.path / name).is_file()]
        return Files(self.path, stamp(self.path, names, self.links))

    def _checked_masks(self) -> dict[str, str]:
        """Return the sha256 of each mask, having read its header."""
        images = {int(Path(image).stem): image for image in self._rows.index}
        shapes = {n: header(self._source.read(image)) for n, image in images.items()}
        found, faults = {}, []
        for name in self._mask_files.names:
            try:
                data = self._mask_files.read(name)
                _check_shape(header(data), shapes[int(Path(name).stem.split("_")[0])])
                found[name] = hashlib.sha256(data).hexdigest()
            except BadInput as error:
                faults.append(f"{name}: {error}")
        what = f"masks below {self.path} cannot be used"
        refuse(faults, what, "fetch them again, or remove them", len(self._mask_files.names))
        return found


def _check_shape(mask: tuple[int, int], image: tuple[int, int]) -> None:
    """Refuse a mask that does not cover its image when both are scaled to one size."""
    if mask[0] * image[1] != mask[1] * image[0]:
        raise BadInput(f"{mask[0]} x {mask[1]} pixels, its image has {image[0]} x {image[1]}")


def _attributes(path: Path) -> pd.DataFrame:
    """Return the attributes of each image, 0 or 1."""
    if not path.is_file():
        raise BadInput(f"no file {path}; give dataset.path=/data/CelebAMask-HQ, unpacked")
    count, header, *rest = [line.split() for line in utf8(path).splitlines()] + [[], []]
    lines = [line for line in rest if line]
    refuse(
        list(_odd_lines(count, header, lines)),
        f"lines of {path} cannot be used",
        "fetch the file again: a count, the attributes' names, then -1 or 1 for each image",
    )
    values = np.array([line[1:] for line in lines], np.int64)
    index = pd.Index([f"{IMAGES}/{line[0]}" for line in lines])
    return pd.DataFrame((values + 1) // 2, index=index, columns=pd.Index(header))


def _odd_lines(
    count: Sequence[str], header: Sequence[str], lines: Sequence[Sequence[str]]
) -> Iterator[str]:
    """Yield what is wrong with the table of attributes."""
    if list(count) != [str(len(lines))]:
        yield f"line 1: says {' '.join(count)!r} images, {len(lines)} follow"
    if len(set(header)) != len(header) or not header:
        yield "line 2: names an attribute twice, or none"
    for number, (name, *values) in enumerate(lines, 3):
        if not re.fullmatch(r"[0-9]+\.jpg", name):
            yield f"line {number} ({name}): not named NUMBER.jpg"
        if len(values) != len(header) or not set(values) <= {"-1", "1"}:
            yield f"line {number} ({name}): not {len(header)} values of -1 or 1"


def _mask_name(image: str, part: str) -> str:
    """Return where the mask of a part of an image is within the folder."""
    stem = Path(image).stem
    return f"{MASKS}/{int(stem) // 2000}/{int(stem):05d}_{part}.png"


class _Masks(Mapping[str, Float[Tensor, "b h w"]]):
    """Part masks, read when asked for."""

    def __init__(self, data: CelebAHQ, ids: Sequence[str]) -> None:
        self._data, self._ids = data, ids

    def __getitem__(self, part: str) -> Float[Tensor, "b h w"]:
        if part not in PARTS:
            raise KeyError(part)
        return torch.stack([self._data.mask(name, part) for name in self._ids])

    def __iter__(self) -> Iterator[str]:
        return iter(PARTS)

    def __len__(self) -> int:
        return len(PARTS)
