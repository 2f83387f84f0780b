"""`dataset=pie_bench`: PIE-Bench's images, prompt pairs and masks."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from latentbench.bounds import Count, Name, Size, between, distinct, not_empty
from latentbench.content import content_hash
from latentbench.data.decoding import header
from latentbench.data.faults import refuse, shortened
from latentbench.data.folder import ImageFolder
from latentbench.data.table import PROMPT, SPLIT
from latentbench.data.tabular import is_text, read_json
from latentbench.errors import BadInput
from latentbench.paths import escape, user_path
from latentbench.types import Batch, Capability, Edit

log = logging.getLogger(__name__)
MAPPING, IMAGES, SIDE = "mapping_file.json", "annotation_images", 512
TYPES = (
    "random", "change_object", "add_object", "delete_object", "change_content", "change_pose",
    "change_color", "change_material", "change_background", "change_style",
)  # fmt: skip
Kinds = Annotated[Sequence[Annotated[int, between(0, 9)]], not_empty, distinct]  # of TYPES
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
        links: follow links that lead out of the folder.

    Raises:
        BadInput: all faults of the mapping file in one list, each with its key.

    Example:
        ``PIEBench(path="/data/PIE-Bench_v1", types=[6, 7])``
    """

    gives = frozenset({Capability.PROMPTS, Capability.PART_MASKS, Capability.EDITS})
    parts = (MASK,)

    def __init__(
        self,
        *,
        path: Name,
        types: Kinds | None = None,
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        mapping = _find(user_path(path, "dataset.path").resolve())
        kinds = TYPES if types is None else [TYPES[number] for number in types]
        entries = [e for e in _read(mapping, links) if e.kind in kinds]
        if not entries:
            raise BadInput(f"{mapping} has no edit of the types {', '.join(kinds)}")
        self._entries = {entry.image: entry for entry in entries}
        columns = {PROMPT: [e.source for e in entries], SPLIT: ["test"] * len(entries)}
        rows = pd.DataFrame(columns, index=pd.Index([e.image for e in entries]))
        super().__init__((mapping.parent / IMAGES).resolve(), rows, size, limit, links)
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


def _read(mapping: Path, links: bool) -> list[Entry]:
    """Return the edits in the order of their keys.

    Raises:
        BadInput: names every fault.
    """
    content, folder = read_json(mapping), (mapping.parent / IMAGES).resolve()
    if not isinstance(content, dict):
        raise BadInput(f"{mapping} must hold an object of edits by key; fetch it again")
    faults = [f"{k}: {why}" for k in sorted(content) for why in _faults(content[k], folder, links)]
    faults = faults or list(_repeated(content))
    refuse(faults, f"edits of {mapping} cannot be used", "mend them, or fetch it again")
    cut = [k for k in sorted(content) if _past_the_end(content[k]["mask"])]
    if cut:
        log.warning("masks that run past the image's end are cut there: %s", shortened(cut))
    entries = {key: _entry(content[key]) for key in sorted(content)}
    idle = [key for key, entry in entries.items() if entry.source == entry.target]
    if idle:
        log.warning("edits whose prompts are equal are left out: %s", shortened(idle))
    return [entry for key, entry in entries.items() if key not in idle]


def _faults(given: Any, images: Path, links: bool) -> Iterator[str]:
    """Yield what is wrong with one edit."""
    wanted = ("image_path", "original_prompt", "editing_prompt", "editing_type_id", "mask")
    absent = [n for n in wanted if n not in given] if isinstance(given, dict) else wanted
    if absent:
        yield f"no {', '.join(absent)}"
        return
    yield from _image_faults(images, given["image_path"], links)
    for name in ("original_prompt", "editing_prompt"):
        text = given[name]
        if not (isinstance(text, str) and is_text(_without_brackets(text))):
            yield f"{name} is {text!r:.60}, not a text"
        elif not re.fullmatch(r"([^\[\]]|\[[^\[\]]*\])*", text):
            yield f"{name} has brackets that do not match: {text!r}"
    if str(given["editing_type_id"]) not in map(str, range(len(TYPES))):
        yield f"editing_type_id is {given['editing_type_id']!r}, not 0 to {len(TYPES) - 1}"
    yield from _mask_faults(given["mask"])


def _image_faults(images: Path, name: Any, links: bool) -> Iterator[str]:
    if why := escape(images, name, links):
        yield f"image_path {name!r:.80}: {why}"
    elif not (path := images / name).is_file():
        yield f"no image {path}"
    elif (size := _size(path)) not in (None, (SIDE, SIDE)):
        yield f"{path} is {size[0]} x {size[1]}, not {SIDE} x {SIDE}"


def _mask_faults(runs: Any) -> Iterator[str]:
    if not isinstance(runs, list) or any(type(number) is not int for number in runs):
        yield f"mask is {runs!r:.60}, not a list of whole numbers"
    elif len(runs) % 2:
        yield f"mask has {len(runs)} numbers, not pairs of start and length"
    elif any(not 0 <= start < SIDE * SIDE for start in runs[::2]):
        yield "mask has a run that starts outside the image"
    elif any(length < 0 for length in runs[1::2]):
        yield "mask has a run of negative length"


def _past_the_end(runs: Sequence[int]) -> bool:
    return any(a + n > SIDE * SIDE for a, n in zip(runs[::2], runs[1::2], strict=True))


def _repeated(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the edits of an image that another edit has already."""
    first: dict[str, str] = {}
    for key in sorted(content):
        name = PurePosixPath(content[key]["image_path"]).as_posix()
        if first.setdefault(name, key) != key:
            yield f"{key}: the image of {first[name]}, {name}; give each edit its own file"


def _size(path: Path) -> tuple[int, int] | None:
    """Return an image's size; None where its head cannot be read, which is found later."""
    try:
        return header(path.read_bytes())
    except (OSError, BadInput):
        return None


def _entry(given: Mapping[str, Any]) -> Entry:
    source, target = (_without_brackets(given[n]) for n in ("original_prompt", "editing_prompt"))
    kind = TYPES[int(given["editing_type_id"])]
    image, runs = PurePosixPath(given["image_path"]).as_posix(), given["mask"]
    pairs = zip(runs[::2], runs[1::2], strict=True)
    cut = tuple(n for a, length in pairs for n in (a, min(length, SIDE * SIDE - a)))
    return Entry(image, source, target, kind, cut)


def _without_brackets(prompt: str) -> str:
    return " ".join(re.sub(r"[\[\]]", "", prompt).split())
