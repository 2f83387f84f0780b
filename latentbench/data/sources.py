"""Where encoded images come from, files or Parquet shards, and the check that all can be read."""

import functools
import hashlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from latentbench.data.decoding import decode
from latentbench.data.faults import refuse, shortened
from latentbench.errors import BadInput
from latentbench.paths import escape

T = TypeVar("T")
log = logging.getLogger(__name__)
MOST_BYTES = 2**30  # of one encoded image


class Source(ABC):
    """Encoded images by name; equal sources hold equal bytes."""

    folder: Path
    names: tuple[str, ...]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return one image's encoded bytes.

        Raises:
            BadInput: there are none, or the file cannot be opened; the name is left out.
        """


@dataclass(frozen=True)
class Stamp:
    """What shows that a file has not changed since it was read."""

    name: str
    size: int
    changed: int


def stamp(folder: Path, names: Sequence[str], links: bool = False) -> tuple[Stamp, ...]:
    """Return the stamps of files below a folder.

    Args:
        folder: the folder, resolved.
        names: paths within it, as a table gives them.
        links: accept links that lead out of the folder.

    Raises:
        BadInput: names that lead out of the folder, or to no file; says which.
    """
    faults = [f"{name}: {why}" for name in names if (why := _no_file(folder, name, links))]
    remedy = "put the files there, or take them out of the table"
    refuse(faults, f"names of files below {folder} cannot be used", remedy, len(names))
    stats = [(name, (folder / name).stat()) for name in names]
    return tuple(Stamp(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _no_file(folder: Path, name: str, links: bool) -> str:
    """Return why a name is not that of a file below a folder, or an empty string."""
    try:
        return escape(folder, name, links) or ("" if (folder / name).is_file() else "no such file")
    except (OSError, ValueError) as error:  # such as a name that is too long
        return str(error)


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
        path = self.folder / name
        try:
            if path.stat().st_size > MOST_BYTES:
                raise BadInput(f"the file has more than {MOST_BYTES} bytes")
            return path.read_bytes()
        except OSError as error:
            raise BadInput(f"the file cannot be opened ({error.strerror})") from error


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
        found = next(stamp for stamp in self.shards if stamp.name == shard)
        try:
            cell = _cell(self.folder, found, self.column, int(row))
        except (OSError, ValueError) as error:  # pyarrow's errors are such
            raise BadInput(f"the shard cannot be read ({_first_line(error)})") from error
        if not (cell and cell.get("bytes")):
            raise BadInput(f"the row has no image: column {self.column!r} holds no bytes")
        return cell["bytes"]


def _cell(folder: Path, shard: Stamp, column: str, row: int) -> dict[str, Any] | None:
    for group, count in enumerate(_group_sizes(folder, shard)):
        if row < count:
            return _group(folder, shard, column, group)[row]
        row -= count
    raise BadInput("the shard has no such row")


@functools.lru_cache(maxsize=256)
def _group_sizes(folder: Path, shard: Stamp) -> tuple[int, ...]:
    metadata = pq.ParquetFile(folder / shard.name).metadata
    return tuple(metadata.row_group(k).num_rows for k in range(metadata.num_row_groups))


@functools.lru_cache(maxsize=4)
def _group(folder: Path, shard: Stamp, column: str, group: int) -> list[dict[str, Any] | None]:
    file = pq.ParquetFile(folder / shard.name)
    return file.read_row_group(group, columns=[column])[column].to_pylist()


@functools.lru_cache(maxsize=8)
def checked(source: Source) -> Mapping[str, str]:
    """Return the sha256 of each image, having decoded all of them.

    What decoding leaves out of a file, such as further frames, is named in a warning.

    Raises:
        BadInput: some cannot be decoded to the end; says which, and why.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(functools.partial(_check, source), source.names))
    refuse(
        [f"{n}: {r.fault}" for n, r in zip(source.names, results, strict=True) if r.fault],
        f"images below {source.folder} cannot be read",
        "replace or remove them",
        len(results),
    )
    for note in sorted({note for result in results for note in result.notes}):
        names = [n for n, r in zip(source.names, results, strict=True) if note in r.notes]
        log.warning("%s: %s", note, shortened(names))
    return {name: r.digest for name, r in zip(source.names, results, strict=True)}


@dataclass(frozen=True)
class _Result:
    digest: str = ""
    fault: str = ""
    notes: tuple[str, ...] = ()


def _check(source: Source, name: str) -> _Result:
    try:
        data = source.read(name)
        return _Result(hashlib.sha256(data).hexdigest(), notes=decode(data).notes)
    except BadInput as error:
        return _Result(fault=str(error))


def read_again(source: Source, name: str, digest: str, decoded: Callable[[bytes], T]) -> T:
    """Return a file that was checked before, decoded.

    Args:
        source: where it is.
        name: the file.
        digest: its sha256 as `checked` found it.
        decoded: makes an image of its bytes, or raises BadInput.

    Raises:
        BadInput: it is not what it was, or cannot be decoded; names it.
    """
    try:
        data = source.read(name)
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadInput("it has changed since the run began; start the run again")
        return decoded(data)
    except BadInput as error:
        raise BadInput(f"{name} below {source.folder}: {error}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
