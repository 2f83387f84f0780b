"""`dataset=pie_bench`: PIE-Bench's images, prompt pairs and masks."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from latentbench.cache import content_hash
from latentbench.data.folder import ImageFolder
from latentbench.data.sources import UNREADABLE, shortened
from latentbench.data.table import PROMPT, SPLIT
from latentbench.errors import BadInput
from latentbench.types import Batch, Capability, Edit

log = logging.getLogger(__name__)
MAPPING, IMAGES, SIDE = "mapping_file.json", "annotation_images", 512
TYPES = (
    "random", "change_object", "add_object", "delete_object", "change_content", "change_pose",
    "change_color", "change_material", "change_background", "change_style",
)  # fmt: skip
MASK = "edit"  # name of the mask: 1 where the image is to change


@dataclass(frozen=True)
class Entry:
    """One edit of the mapping file, checked.

    Args:
        image: path within `annotation_images`.
        source: prompt of the image, without brackets.
        target: prompt of the edited image, without brackets.
        kind: one of `TYPES`.
        runs: the mask as start, length, start, length ...
    """

    image: str
    source: str
    target: str
    kind: str
    runs: tuple[int, ...]


class PIEBench(ImageFolder):
    """700 images of 512 px with a source prompt, a target prompt and a mask; all in "test".

    Source: "PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code", section
    "PIE-Bench". Brackets around differing words are taken out of the prompts. As in the reference
    code, the mask's outermost lines count as edited. Edits whose prompts are equal are left out
    with a warning.

    Args:
        path: folder with `mapping_file.json` and `annotation_images`, or the folder above.
        types: numbers of the edit types to use, 0 to 9; None for all.
        size: pixels per side; None until a model gives its own.
        limit: only the first images, by name; None for all.

    Raises:
        BadInput: all faults of the mapping file in one list, each with its key.

    Example:
        ``PIEBench(path="/data/PIE-Bench_v1", types=[6, 7])``
    """

    gives = frozenset({Capability.PROMPTS, Capability.PART_MASKS, Capability.EDITS})

    def __init__(
        self,
        *,
        path: str,
        types: Sequence[int] | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> None:
        mapping = _find(Path(path).resolve())
        kinds = TYPES if types is None else [_kind(number) for number in types]
        entries = [e for e in _read(mapping) if e.kind in kinds]
        if not entries:
            raise BadInput(f"{mapping} has no edit of the types {', '.join(kinds)}")
        self._entries = {entry.image: entry for entry in entries}
        columns = {PROMPT: [e.source for e in entries], SPLIT: ["test"] * len(entries)}
        rows = pd.DataFrame(columns, index=pd.Index([e.image for e in entries]))
        super().__init__(mapping.parent / IMAGES, rows, size, limit)
        self.gives |= {Capability.PART_MASKS, Capability.EDITS}
        self.edit_kinds = tuple(k for k in TYPES if self.of_kind("test", k))

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return images with source prompts, and the mask under the name "edit"."""
        batch = super().batch(split, indices)
        masks = torch.stack([self._mask(name) for name in batch.ids])
        return replace(batch, masks={MASK: masks})

    def edit(self, split: str, indices: Sequence[int]) -> Edit:
        """Return what is asked of these images, under the name of the first one's type."""
        entries = [self._entries[name] for name in self.ids(split, indices)]
        return Edit(
            entries[0].kind,
            source_prompts=tuple(e.source for e in entries),
            target_prompts=tuple(e.target for e in entries),
            masks=torch.stack([self._mask(e.image) for e in entries]),
        )

    def of_kind(self, split: str, kind: str) -> Sequence[int]:
        """Return the indices of the images whose edit is of this type, in words."""
        names = self.ids(split, range(self.size(split)))
        return [k for k, name in enumerate(names) if self._entries[name].kind == kind]

    def fingerprint(self) -> str:
        """Return a hash of images, prompts and masks."""
        entries = [astuple(self._entries[name]) for name in self._rows.index]
        return content_hash(super().fingerprint(), entries)

    def _mask(self, name: str) -> Float[Tensor, "h w"]:
        mask = decode_mask(self._entries[name].runs)
        fitted = self.fitted(Image.fromarray(mask), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(fitted)).float()


def decode_mask(runs: Sequence[int]) -> Bool[np.ndarray, "512 512"]:
    """Return the mask of runs (start, length) over the row-major image, its border set.

    Example:
        >>> int(decode_mask([]).sum())
        2044
    """
    pairs = np.asarray(runs, np.int64).reshape(-1, 2)
    change = np.zeros(SIDE * SIDE + 1, np.int64)
    np.add.at(change, pairs[:, 0], 1)
    np.add.at(change, np.minimum(pairs.sum(1), SIDE * SIDE), -1)
    mask = (change[:-1].cumsum() > 0).reshape(SIDE, SIDE)
    mask[[0, -1]] = mask[:, [0, -1]] = True
    return mask


def _find(folder: Path) -> Path:
    """Return the mapping file, in the folder or one level below it."""
    found = [p for p in (folder / MAPPING, *sorted(folder.glob(f"*/{MAPPING}"))) if p.is_file()]
    if len(found) != 1:
        what = "no" if not found else f"{len(found)} files called"
        raise BadInput(f"{what} {MAPPING} in {folder} or one level below; give "
                       f"dataset.path=/data/PIE-Bench_v1")  # fmt: skip
    return found[0]


def _kind(number: int) -> str:
    if number not in range(len(TYPES)):
        words = ", ".join(f"{k} {name}" for k, name in enumerate(TYPES))
        raise BadInput(f"PIE-Bench has no edit type {number}; it has {words}")
    return TYPES[number]


def _read(mapping: Path) -> list[Entry]:
    """Return the edits in the order of their keys.

    Raises:
        BadInput: names every fault.
    """
    content = json.loads(mapping.read_text(encoding="utf-8"))
    entries, faults, idle = [], [], []
    for key in sorted(content):
        faults += [f"{key}: {fault}" for fault in _faults(content[key], mapping.parent / IMAGES)]
        if not faults:
            entry = _entry(content[key])
            entries += [entry] if entry.source != entry.target else []
            idle += [key] if entry.source == entry.target else []
    if faults:
        raise BadInput(f"{mapping} has {len(faults)} faults: {shortened(faults, 20)}")
    if idle:
        log.warning("edits whose prompts are equal are left out: %s", shortened(idle))
    return entries


def _faults(given: Mapping[str, Any], images: Path) -> Iterator[str]:
    """Yield what is wrong with one edit."""
    wanted = ("image_path", "original_prompt", "editing_prompt", "editing_type_id", "mask")
    absent = [name for name in wanted if name not in given]
    if absent:
        yield f"no {', '.join(absent)}"
        return
    path = images / given["image_path"]
    if not path.is_file():
        yield f"no image {path}"
    elif (size := _size(path)) not in (None, (SIDE, SIDE)):
        yield f"{path} is {size[0]} x {size[1]}, not {SIDE} x {SIDE}"
    for name in ("original_prompt", "editing_prompt"):
        if not re.fullmatch(r"([^\[\]]|\[[^\[\]]*\])*", given[name]):
            yield f"{name} has brackets that do not match: {given[name]!r}"
    if str(given["editing_type_id"]) not in map(str, range(len(TYPES))):
        yield f"editing_type_id is {given['editing_type_id']!r}, not 0 to {len(TYPES) - 1}"
    if len(given["mask"]) % 2:
        yield f"mask has {len(given['mask'])} numbers, not pairs of start and length"
    elif any(not 0 <= start < SIDE * SIDE for start in given["mask"][::2]):
        yield "mask has a run that starts outside the image"


def _size(path: Path) -> tuple[int, int] | None:
    """Return an image's size; None where its head cannot be read, which is found later."""
    try:
        with Image.open(path) as image:
            return image.size
    except UNREADABLE:
        return None


def _entry(given: Mapping[str, Any]) -> Entry:
    source, target = (
        " ".join(re.sub(r"[\[\]]", "", given[name]).split())
        for name in ("original_prompt", "editing_prompt")
    )
    kind = TYPES[int(given["editing_type_id"])]
    return Entry(given["image_path"], source, target, kind, tuple(given["mask"]))
