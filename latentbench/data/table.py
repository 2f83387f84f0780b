"""A table of encoded images: what all data sets that lie on disk share."""

import hashlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.data.decoding import decode
from latentbench.data.faults import refuse
from latentbench.data.sources import Source, checked, read_again
from latentbench.data.tabular import is_text
from latentbench.errors import BadInput, unknown
from latentbench.types import Batch, Capability, Description

PROMPT, SPLIT, PLACE = "prompt", "split", "place in the table"
SHARES = {"generator": 0.5, "judge": 0.6, "calibration": 0.75, "test": 1.0}  # upper ends
OFFICIAL = {"train": (0.0, 0.6), "held_out": (0.6, 1.0)}  # where a data set's own splits go


class ImageTable(Dataset):
    """Images on disk, resized to cover a square and centre-cropped, with what a table says of them.

    A reader of a layout makes the table: its index names the images; the columns `prompt`, `split`
    and `PLACE` (what messages call the row) are optional, all others are numbers in [0, 1] and
    become factors.

    Args:
        rows: the table.
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all. Every image in use is
            decoded once, before any work.

    Raises:
        BadInput: rows that cannot be used, or images that cannot be read: all of them, by name.
    """

    version: ClassVar[int] = 2  # 2: colours as they are seen (alpha, 16 bits, ICC profiles)

    def __init__(self, rows: pd.DataFrame, size: int | None, limit: int | None) -> None:
        self.image_size = size
        rows = checked_rows(rows).sort_index()
        self._files = _deal(rows, limit)
        self._rows = rows.loc[sorted(name for files in self._files.values() for name in files)]
        self._source = self.source(tuple(self._rows.index))
        self._hashes = checked(self._source)
        self._factors = self._rows.drop(columns=[c for c in (PROMPT, SPLIT) if c in self._rows])
        self.factor_names = self.attributes = tuple(map(str, self._factors.columns))
        self.gives = frozenset({Capability.LABELS} if self.factor_names else ())
        self.gives |= {Capability.PROMPTS} if PROMPT in self._rows else set()

    @abstractmethod
    def source(self, names: tuple[str, ...]) -> Source:
        """Return where the encoded images of these names come from."""

    def size(self, split: str) -> int:
        """Return how many images the split holds."""
        return len(self._of(split))

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return images with what the table says; ids are the images' names."""
        known = self.describe(split, indices)
        images = torch.stack([self._image(name) for name in known.ids])
        return Batch(known.ids, images, known.prompts, known.factors)

    def describe(self, split: str, indices: Sequence[int]) -> Description:
        """Return what the table says; no image is decoded."""
        ids = self.ids(split, indices)
        rows = self._rows.loc[list(ids)]
        prompts = tuple(map(str, rows[PROMPT])) if PROMPT in rows else None
        factors = torch.tensor(self._factors.loc[list(ids)].to_numpy(np.float32))
        return Description(ids, prompts, factors if self.factor_names else None)

    def ids(self, split: str, indices: Sequence[int]) -> tuple[str, ...]:
        """Return the names of these images of a split."""
        files = self._of(split)
        outside = [i for i in indices if not 0 <= i < len(files)]
        if outside:
            raise BadInput(
                f"split {split!r} of {self._source.folder} has {len(files)} images, image "
                f"{outside[0]} was asked for; lower benchmark.n, or add images or a split column"
            )
        return tuple(files[i] for i in indices)

    def fingerprint(self) -> str:
        """Return a hash of all images in use and of what the table says of them."""
        return content_hash(sorted(self._hashes.items()), self._rows.to_csv())

    def _of(self, split: str) -> Sequence[str]:
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return self._files[split]

    def _image(self, name: str) -> Float[Tensor, "3 h w"]:
        seen = read_again(self._source, name, self._hashes[name], decode)
        image = self.fitted(seen.image, Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1

    def fitted(self, image: Image.Image, resampling: Image.Resampling) -> Image.Image:
        """Return an image or a mask resized to cover the square and centre-cropped."""
        if self.image_size is None:
            raise BadInput("the image size is not known; give dataset.size, or a model")
        return ImageOps.fit(image, (self.image_size, self.image_size), resampling)


def checked_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose rows are fit for use: factors as float32, `PLACE` left out.

    Args:
        rows: the table, see `ImageTable`.

    Raises:
        BadInput: images named twice or not by text, prompts that are not text, unknown splits,
            factors that are not numbers in [0, 1]; one line each.
    """
    places = rows[PLACE].tolist() if PLACE in rows else [None] * len(rows)
    labels = [f"{p} ({n})" if p else str(n) for n, p in zip(rows.index, places, strict=True)]
    rows = rows.drop(columns=[PLACE], errors="ignore")
    faults = [*_name_faults(rows.index.tolist(), labels), *_cell_faults(rows, labels)]
    refuse(faults, "rows of the table cannot be used", "mend or remove them", len(rows))
    factors = [c for c in rows if c not in (PROMPT, SPLIT)]
    return rows.astype(dict.fromkeys(factors, np.float32))


def _name_faults(names: Sequence[Any], labels: Sequence[str]) -> Iterator[str]:
    first: dict[Any, str] = {}
    for name, label in zip(names, labels, strict=True):
        if not is_text(name):
            yield f"{label}: the image's name is {_words(name)}, not a text"
        elif name in first:
            yield f"{label}: a second row for the image of {first[name]}"
        else:
            first[name] = label


def _cell_faults(rows: pd.DataFrame, labels: Sequence[str]) -> Iterator[str]:
    checks = {PROMPT: _prompt_fault, SPLIT: _split_fault}
    for column in rows:
        check = checks.get(str(column), _factor_fault)
        for cell, label in zip(rows[column].tolist(), labels, strict=True):
            if fault := check(cell):
                yield f"{label}: {column} {fault}"


def _prompt_fault(cell: Any) -> str:
    return "" if is_text(cell) else f"is {_words(cell)}, not a text"


def _split_fault(cell: Any) -> str:
    known = isinstance(cell, str) and cell in SHARES
    return "" if known else f"is {_words(cell)}; use one of {', '.join(SHARES)}"


def _factor_fault(cell: Any) -> str:
    number = isinstance(cell, int | float | Decimal | np.number)
    fits = number and 0 <= float(cell) <= 1  # false for NaN
    return "" if fits else f"is {_words(cell)}, not a number in [0, 1]"


def _words(cell: Any) -> str:
    """Return a cell for a message."""
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return "missing"
    return repr(cell)[:60]


def _deal(rows: pd.DataFrame, limit: int | None) -> Mapping[str, Sequence[str]]:
    """Return the images of each split, by name."""
    where = rows[SPLIT].to_dict() if SPLIT in rows else {name: dealt(name) for name in rows.index}
    return {split: [n for n in rows.index if where[n] == split][:limit] for split in SHARES}


def deal_official(names: Sequence[str], sides: Sequence[str | None]) -> list[str]:
    """Return the splits of images whose data set has splits of its own.

    Args:
        names: the images.
        sides: "train", "held_out" or None (unknown) of each; where all are on one side, they are
            dealt as if the data set had no splits, so that no split is empty.
    """
    several = len(set(sides)) > 1
    pairs = zip(names, sides, strict=True)
    return [dealt(name, side if several else None) for name, side in pairs]


def side_of(path: str) -> str | None:
    """Return "train" or "held_out" where a folder or a file's first word says so.

    Example:
        >>> [side_of(p) for p in ("train/cat/1.png", "data/validation-00000-of-00001.parquet", "x")]
        ['train', 'held_out', None]
    """
    found = re.search(r"(?:^|/)(train|val|validation|dev|test)(?=\d*[-/._]|$)", path)
    return None if found is None else "train" if found[1] == "train" else "held_out"


def dealt(name: str, official: str | None = None) -> str:
    """Return the split of an image by a hash of its name: adding images never moves others.

    Half go to "generator", a tenth to "judge", 15% to "calibration", a quarter to "test".

    Args:
        name: the image's name.
        official: "train" or "held_out", where the data set has splits of its own: the first go to
            "generator" and "judge" alone, the others to "calibration" and "test".

    Example:
        >>> dealt("a.png", "train") in ("generator", "judge")
        True
    """
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    low, high = (0.0, 1.0) if official is None else OFFICIAL[official]
    share = low + (high - low) * share
    return next(split for split, end in SHARES.items() if share < end)
