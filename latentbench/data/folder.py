"""`dataset=folder`: a user's own images, with labels, prompts or splits from a table."""

import functools
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from latentbench.cache import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput, unknown
from latentbench.types import Batch

log = logging.getLogger(__name__)
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TABLES = (".csv", ".parquet")
FILE, PROMPT, SPLIT = "file", "prompt", "split"
SHARES = {"generator": 0.5, "judge": 0.6, "calibration": 0.75, "test": 1.0}  # upper ends


class Folder(Dataset):
    """Images below a folder, resized to cover a square and centre-cropped.

    A table may say more: a column `file` (path within the folder), then `prompt`, `split`, and any
    columns of numbers in [0, 1], which become factors. Without a `split` column, a hash of the
    file's name deals images out: half to "generator", a tenth to "judge", 15% to "calibration",
    a quarter to "test"; adding images never moves others.

    Args:
        path: the folder; sub-folders are searched as well.
        table: csv or parquet file; by default the only one that lies in the folder.
        size: pixels per side; None until a model gives its own.

    Raises:
        BadInput: at once, before any work: no folder, no image, images that cannot be read (by
            name), a table that does not match them.

    Example:
        >>> photos = Folder(path="/data/photos", size=64)  # doctest: +SKIP
    """

    def __init__(self, *, path: str, table: str | None = None, size: int | None = None) -> None:
        self.path, self.image_size = Path(path).resolve(), size
        self._hashes = _scan(self.path, _stamps(self.path))
        found = _find_table(self.path) if table is None else Path(table).resolve()
        rows = pd.DataFrame(index=pd.Index(sorted(self._hashes)))
        if found is not None:
            rows = _read_table(found, self._hashes)
        self._table_hash = "" if found is None else hashlib.sha256(found.read_bytes()).hexdigest()
        self._prompts = rows[PROMPT].to_dict() if PROMPT in list(rows.columns) else None
        self._factors = _factors(rows)
        self.factor_names = self.attributes = tuple(map(str, self._factors.columns))
        self.provides = frozenset({"labels"} if self.factor_names else ())
        self.provides |= {"prompts"} if self._prompts else set()
        self._files = _deal(rows)

    def size(self, split: str) -> int:
        """Return how many images the split holds."""
        return len(self._of(split))

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return images with what the table says; ids are paths within the folder."""
        files = self._of(split)
        outside = [i for i in indices if not 0 <= i < len(files)]
        if outside:
            raise BadInput(
                f"split {split!r} of {self.path} has {len(files)} images, image {outside[0]} was "
                f"asked for; lower benchmark.n, or add images or a split column"
            )
        ids = tuple(files[i] for i in indices)
        images = torch.stack([self._image(name) for name in ids])
        prompts = None if self._prompts is None else tuple(str(self._prompts[i]) for i in ids)
        factors = torch.tensor(self._factors.loc[list(ids)].to_numpy(np.float32))
        return Batch(ids, images, prompts, factors if self.factor_names else None)

    def fingerprint(self) -> str:
        """Return a hash of all images and of the table."""
        return content_hash(sorted(self._hashes.items()), self._table_hash)

    def _of(self, split: str) -> Sequence[str]:
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return self._files[split]

    def _image(self, name: str) -> Float[Tensor, "3 h w"]:
        if self.image_size is None:
            raise BadInput("the image size is not known; give dataset.size, or a model")
        size = (self.image_size, self.image_size)
        with Image.open(self.path / name) as file:
            upright = ImageOps.exif_transpose(file).convert("RGB")
            image = ImageOps.fit(upright, size, Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


@dataclass(frozen=True)
class _Stamp:
    """What tells that a file has not changed since it was read."""

    name: str
    size: int
    changed: int


def _stamps(folder: Path) -> tuple[_Stamp, ...]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; give dataset.path=/where/your/images/lie")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES)
    if not files:
        raise BadInput(f"no image below {folder}; looked for {', '.join(IMAGES)}")
    stats = [(p.relative_to(folder).as_posix(), p.stat()) for p in files]
    return tuple(_Stamp(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@functools.lru_cache(maxsize=8)
def _scan(folder: Path, stamps: tuple[_Stamp, ...]) -> Mapping[str, str]:
    """Return the hash of each image, having decoded all of them."""
    hashes, broken = {}, []
    for stamp in stamps:
        data = (folder / stamp.name).read_bytes()
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as e:
            broken.append(f"{stamp.name} ({type(e).__name__})")
        hashes[stamp.name] = hashlib.sha256(data).hexdigest()
    if broken:
        more = f" and {len(broken) - 10} more" if len(broken) > 10 else ""
        raise BadInput(
            f"{len(broken)} of {len(stamps)} images below {folder} cannot be read: "
            f"{', '.join(broken[:10])}{more}; mend or remove them"
        )
    return hashes


def _find_table(folder: Path) -> Path | None:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in TABLES)
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise BadInput(f"{folder} holds several tables ({names}); say which: dataset.table=...")
    return found[0] if found else None


def _read_table(path: Path, images: Mapping[str, str]) -> pd.DataFrame:
    """Return the table with the images' names as its index, one row per image."""
    if path.suffix.lower() not in TABLES or not path.is_file():
        raise BadInput(f"table {path} must be a csv or parquet file that exists")
    rows = pd.read_csv(path) if path.suffix.lower() == ".csv" else pd.read_parquet(path)
    if FILE not in rows:
        raise BadInput(f"{path} has no column {FILE!r}; it has {', '.join(map(str, rows.columns))}")
    index = [c for c in rows if str(c).startswith("Unnamed:")]  # pandas' row numbers in a csv
    rows = rows.set_index(rows[FILE].astype(str)).drop(columns=[FILE, *index])
    for what, names in (
        ("rows twice for", rows.index[rows.index.duplicated()]),
        ("rows without an image for", sorted(set(rows.index) - images.keys())),
        ("no row for", sorted(images.keys() - set(rows.index))),
    ):
        if len(names):
            raise BadInput(f"{path} has {what} {', '.join(names[:5])} ({len(names)} in all)")
    prompts: Any = rows.get(PROMPT)
    if prompts is not None and prompts.isna().any():
        raise BadInput(f"{path} has no prompt for {prompts.index[prompts.isna()][0]}")
    return rows.sort_index()


def _factors(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of numbers; text columns are left out with a warning."""
    others = rows.drop(columns=[c for c in (PROMPT, SPLIT) if c in rows])
    numbers = others.select_dtypes(["number", "bool"]).astype(np.float32)
    ignored = [str(c) for c in others if c not in numbers]
    if ignored:
        log.warning("table columns without numbers are ignored: %s", ", ".join(ignored))
    for name, column in numbers.items():
        values = column.to_numpy()
        missing, known = int(np.isnan(values).sum()), values[~np.isnan(values)]
        if missing or known.min() < 0 or known.max() > 1:
            raise BadInput(
                f"column {name!r} must hold numbers in [0, 1] for every image; it has {missing} "
                f"missing, and the others are {', '.join(f'{v:g}' for v in known[:5])}...; rescale"
            )
    return numbers


def _deal(rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """Return the files of each split, by name."""
    where = rows[SPLIT].to_dict() if SPLIT in rows else {name: _hashed(name) for name in rows.index}
    for name, split in where.items():
        if split not in SHARES:
            raise BadInput(f"split of {name} is {split!r}; use one of {', '.join(SHARES)}")
    return {split: [n for n in rows.index if where[n] == split] for split in SHARES}


def _hashed(name: str) -> str:
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return next(split for split, end in SHARES.items() if share < end)
