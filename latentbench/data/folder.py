"""`dataset=folder`: a user's own images, with labels, prompts or splits from a table."""

import hashlib
import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from latentbench.bounds import Count, Name, Size
from latentbench.content import content_hash
from latentbench.data.decoding import decode, decode_mask
from latentbench.data.faults import refuse
from latentbench.data.image_files import image_files
from latentbench.data.sources import Files, read_again, stamp
from latentbench.data.table import PLACE, PROMPT, SPLIT, ImageTable
from latentbench.data.tabular import READERS, Table, mostly_numbers, read_table
from latentbench.errors import BadInput
from latentbench.paths import escape, user_path
from latentbench.types import Batch, Capability

log = logging.getLogger(__name__)
FILE = "file"
MASK = "edit"  # name of the masks: 1 where an image is to change


class ImageFolder(ImageTable):
    """One file per image below a folder; the base of readers of published layouts.

    Args:
        path: the folder, resolved.
        rows: see `ImageTable`; its index holds paths within the folder.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split.
        links: follow links that lead out of the folder.
    """

    def __init__(
        self,
        path: Path,
        rows: pd.DataFrame,
        size: int | None,
        limit: int | None,
        links: bool = False,
    ) -> None:
        self.path, self.links = path, links
        super().__init__(rows, size, limit)

    def source(self, names: tuple[str, ...]) -> Files:
        """Return the files."""
        return Files(self.path, stamp(self.path, names, self.links))


class Folder(ImageFolder):
    """Images below a folder, resized to cover a square and centre-cropped.

    A table may say more: a column `file` (path within the folder), then `prompt`, `split`, and any
    columns of numbers in [0, 1], which become factors. Without a `split` column, a hash of the
    file's name deals images out: half to "generator", a tenth to "judge", 15% to "calibration",
    a quarter to "test"; adding images never moves others.

    Args:
        path: the folder; sub-folders are searched as well. Relative paths start from where the
            command was typed, `~` is the user's home.
        table: csv, tsv, jsonl or parquet file; by default the only one in the folder.
        masks: another folder, with a mask for each image under the image's path, as a PNG: white
            where the image is to change. They are the part mask "edit".
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.
        links: follow links that lead out of the folder.

    Raises:
        BadInput: at once, before any work: no folder, no image, images or masks that cannot be read
            (by name), a table that does not match them.

    Example:
        ``Folder(path="/data/photos", size=64)``
    """

    def __init__(
        self,
        *,
        path: Name,
        table: Name | None = None,
        masks: Name | None = None,
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        folder = user_path(path, "dataset.path").resolve()
        names = image_files(folder, links)
        found = _find_table(folder) if table is None else user_path(table, "dataset.table")
        rows = pd.DataFrame(index=pd.Index(names))
        if found is not None:
            rows = _rows(read_table(found), folder, names)
        super().__init__(folder, rows, size, limit, links)
        self._masks: Mapping[str, str] = {}  # sha256 by name
        if masks is not None:
            place = user_path(masks, "dataset.masks").resolve()
            paths = tuple(_mask_name(name) for name in self._rows.index)
            self._mask_files = Files(place, stamp(place, paths, links))
            self._masks = self._checked_masks()
            self.gives, self.parts = self.gives | {Capability.PART_MASKS}, (MASK,)

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return images with what the table says, and their masks under the name "edit"."""
        batch = super().batch(split, indices)
        if not self._masks:
            return batch
        return replace(batch, masks={MASK: torch.stack([self._mask(i) for i in batch.ids])})

    def fingerprint(self) -> str:
        """Return a hash of all images in use, of their masks and of what the table says of them."""
        own = super().fingerprint()
        return content_hash(own, sorted(self._masks.items())) if self._masks else own

    def _mask(self, image: str) -> Float[Tensor, "h w"]:
        name = _mask_name(image)
        mask = read_again(self._mask_files, name, self._masks[name], decode_mask)
        fitted = self.fitted(mask, Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(fitted) > 127).float()

    def _checked_masks(self) -> dict[str, str]:
        """Return the sha256 of each mask, having decoded all of them."""
        found, faults = {}, []
        for image in self._rows.index:
            name = _mask_name(image)
            try:
                data = self._mask_files.read(name)
                size = decode_mask(data).size
                wanted = decode(self._source.read(image)).image.size
                if size != wanted:
                    raise BadInput(f"{size} pixels, its image has {wanted}")
                found[name] = hashlib.sha256(data).hexdigest()
            except BadInput as error:
                faults.append(f"{name}: {error}")
        what = f"masks below {self._mask_files.folder} cannot be used"
        refuse(faults, what, "give each image a mask of its own size", len(self._rows))
        return found


def _mask_name(image: str) -> str:
    """Return the path of an image's mask within the folder of masks."""
    return PurePosixPath(image).with_suffix(".png").as_posix()


def _find_table(folder: Path) -> Path | None:
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    found = sorted(p for p in files if p.suffix.lower() in READERS)
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise BadInput(
            f"{folder} holds several tables ({names}); leave one, or say which: dataset.table=..."
        )
    return found[0] if found else None


def _rows(table: Table, folder: Path, images: Sequence[str]) -> pd.DataFrame:
    """Return a table's rows, one per image, under the images' names."""
    known = {_form(name): name for name in images} | {name: name for name in images}
    given = [_written(cell) for cell in table.column(FILE)]
    index = [known.get(name, known.get(_form(name))) for name in given]
    faults = [
        f"{place}: {name}: {escape(folder, name, links=True) or 'no such image below the folder'}"
        for place, name, image in zip(table.places, given, index, strict=True)
        if image is None
    ]
    refuse(
        [*faults, *(f"{name}: no row in the table" for name in sorted(set(images) - set(index)))],
        f"rows of {table.path} and images below {folder} do not match",
        "give each image one row, under the path that it has within the folder",
    )
    return pd.DataFrame(dict(_columns(table)), pd.Index(index), dtype=object)


def _written(cell: Any) -> str:
    """Return a file's name without needless parts such as "./"."""
    return PurePosixPath(cell).as_posix() if isinstance(cell, str) else f"{cell!r}"


def _form(name: str) -> str:
    """Return a name with accents in one form: systems differ in which one they write."""
    return unicodedata.normalize("NFC", name)


def _columns(table: Table) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the columns in use; others of text are left out with a warning."""
    yield PLACE, [f"{table.path.name}, {place}" for place in table.places]
    yield from ((name, table.column(name)) for name in (PROMPT, SPLIT) if name in table.columns)
    others = {n: table.numbers(n) for n in table.columns if n not in (FILE, PROMPT, SPLIT)}
    ignored = [name for name, cells in others.items() if not mostly_numbers(cells)]
    if ignored:
        log.warning("table columns without numbers are ignored: %s", ", ".join(ignored))
    yield from ((name, cells) for name, cells in others.items() if name not in ignored)
