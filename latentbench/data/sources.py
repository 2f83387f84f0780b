"""Where encoded images come from, files or Parquet shards, and the check that all can be read."""

import functools
import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from latentbench.errors import BadInput

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
UNREADABLE = (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError)


class Source(ABC):
    """Encoded images by name; equal sources hold equal bytes."""

    folder: Path
    names: tuple[str, ...]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return one image's encoded bytes."""


@dataclass(frozen=True)
class Stamp:
    """What tells that a file has not changed since it was read."""

    name: str
    size: int
    changed: int


def stamp(folder: Path, names: Sequence[str]) -> tuple[Stamp, ...]:
    """Return the stamps of files below a folder.

    Raises:
        BadInput: some of them are not there; says which.
    """
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise BadInput(
            f"{len(absent)} of {len(names)} files are not below {folder}: "
            f"{shortened(absent)}; put them there, or take them out of the table"
        )
    stats = [(name, (folder / name).stat()) for name in names]
    return tuple(Stamp(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@dataclass(frozen=True)
class Files(Source):
    """One file per image; a name is a path within the folder."""

    folder: Path
    stamps: tuple[Stamp, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the paths within the folder."""
        return tuple(stamp.name for stamp in self.stamps)

    def read(self, name: str) -> bytes:
        """Return the file's bytes."""
        return (self.folder / name).read_bytes()


@dataclass(frozen=True)
class Parquet(Source):
    """Rows of Parquet shards, with a column of structs that hold the encoded `bytes`.

    Args:
        folder: where the shards lie.
        shards: the shards.
        column: name of the column of images.
        names: names of the images in use, ``SHARD#ROW``.
    """

    folder: Path
    shards: tuple[Stamp, ...]
    column: str
    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """Return the bytes of one row's image."""
        shard, row = name.rsplit("#", 1)
        return _cell(self.folder / shard, self.column, int(row))


def _cell(shard: Path, column: str, row: int) -> bytes:
    for group, count in enumerate(_group_sizes(shard)):
        if row < count:
            return _group(shard, column, group)[row]["bytes"] or b""
        row -= count
    raise IndexError(f"{shard} has no row {row}")


@functools.lru_cache(maxsize=256)
def _group_sizes(shard: Path) -> tuple[int, ...]:
    metadata = pq.ParquetFile(shard).metadata
    return tuple(metadata.row_group(k).num_rows for k in range(metadata.num_row_groups))


@functools.lru_cache(maxsize=4)
def _group(shard: Path, column: str, group: int) -> list[dict[str, bytes]]:
    return pq.ParquetFile(shard).read_row_group(group, columns=[column])[column].to_pylist()


def image_files(folder: Path) -> list[str]:
    """Return the paths within a folder of all images below it, in order.

    Raises:
        BadInput: no such folder, or no image below it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; give dataset.path=/where/your/images/lie")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise BadInput(f"no image below {folder}; looked for {', '.join(SUFFIXES)}")
    return [path.relative_to(folder).as_posix() for path in found]


@functools.lru_cache(maxsize=8)
def checked(source: Source) -> Mapping[str, str]:
    """Return the sha256 of each image, having decoded all of them.

    Raises:
        BadInput: some cannot be decoded to the end; says which.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(functools.partial(_check, source), source.names))
    faults = [f"{n} ({f})" for n, (_, f) in zip(source.names, results, strict=True) if f]
    if faults:
        raise BadInput(
            f"{len(faults)} of {len(results)} images below {source.folder} cannot be read: "
            f"{shortened(faults)}; mend or remove them"
        )
    return {name: digest for name, (digest, _) in zip(source.names, results, strict=True)}


def _check(source: Source, name: str) -> tuple[str, str]:
    """Return (hash, fault) of an image; no fault is an empty string."""
    data = source.read(name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except UNREADABLE as error:
        return "", type(error).__name__
    return hashlib.sha256(data).hexdigest(), ""


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, and how many more there are.

    Example:
        >>> shortened(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
