"""`dataset=hub`: a data set of the Hugging Face hub, or a local folder in the hub's layouts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from latentbench.bounds import Count, Name, Size, distinct
from latentbench.data.decoding import readable_endings
from latentbench.data.faults import refuse
from latentbench.data.image_files import files_below, image_files
from latentbench.data.sources import Files, Parquet, Source, stamp
from latentbench.data.table import PLACE, PROMPT, SPLIT, ImageTable, deal_official, side_of
from latentbench.data.tabular import Table, no_column, read_table
from latentbench.errors import BadInput
from latentbench.paths import escape, user_path

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"
ID = re.compile(r"[\w.-]+(/[\w.-]+)?")  # of a data set of the hub


class Hub(ImageTable):
    """Images in Parquet shards, or in folders with `metadata.csv`, `.jsonl` or `.parquet`.

    Shards and folders whose names say train, validation or test keep to their side: training
    images go to "generator" and "judge", all others to "calibration" and "test".

    Args:
        path: id of a data set (``owner/name``), or a folder of the same layout.
        revision: branch, tag or commit of the hub; None for the newest.
        image: column of the shards that holds the images; None where there is only one.
        prompt: column that holds captions, or None.
        factors: columns of numbers in [0, 1].
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.
        links: follow links that lead out of the folder.

    Raises:
        BadInput: not on disk and no network (the message has the command that fetches it), another
            layout, a column that is not there, rows that cannot be used, or images that cannot be
            read.

    Example:
        ``Hub(path="owner/faces", prompt="text", limit=500)``
    """

    def __init__(
        self,
        *,
        path: Name,
        revision: Name | None = None,
        image: str | None = None,
        prompt: Name | None = None,
        factors: Annotated[Sequence[Name], distinct] = (),
        size: Size | None = None,
        limit: Count | None = None,
        links: bool = False,
    ) -> None:
        self.folder, self.links = _folder(path, revision), links
        self._image_column = None
        wanted = _Wanted(prompt, tuple(factors))
        tables = files_below(self.folder, (".csv", ".jsonl", ".parquet"), links)
        shards = [n for n in tables if n.endswith(".parquet") and _base(n) not in METADATA]
        if shards:
            self._image_column = _image_column(self.folder, shards, image)
            parts = [_read_shard(self.folder, shard, wanted) for shard in shards]
        else:
            metadata = [name for name in tables if _base(name) in METADATA]
            parts = _read_metadata(self.folder, metadata, wanted, links)
        rows = pd.concat(parts)
        names = [str(name) for name in rows.index]
        splits = deal_official(names, [side_of(name) for name in names])
        super().__init__(rows.assign(**{SPLIT: splits}), size, limit)

    def source(self, names: tuple[str, ...]) -> Source:
        """Return the shards or the files."""
        if self._image_column is None:
            return Files(self.folder, stamp(self.folder, names, self.links))
        shards = sorted({name.rsplit("#", 1)[0] for name in names})
        stamps = stamp(self.folder, shards, self.links)
        return Parquet(self.folder, stamps, self._image_column, names)


@dataclass(frozen=True)
class _Wanted:
    """The columns that were asked for."""

    prompt: str | None
    factors: tuple[str, ...]

    def names(self) -> list[str]:
        """Return the columns' names in the files."""
        return [*self.factors, *([] if self.prompt is None else [self.prompt])]

    def rows(self, table: Table, names: Sequence[str]) -> pd.DataFrame:
        """Return a table's columns for images of these names."""
        clash = {PROMPT, SPLIT, PLACE} & set(self.factors)
        if clash:
            raise BadInput(f"a factor cannot be called {clash.pop()!r}; rename the column")
        columns: dict[str, Any] = {name: table.numbers(name) for name in self.factors}
        if self.prompt is not None:
            columns[PROMPT] = table.column(self.prompt)
        columns[PLACE] = [f"{table.path.name}, {place}" for place in table.places]
        return pd.DataFrame(columns, pd.Index(names, dtype=object), dtype=object)


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _folder(path: str, revision: str | None) -> Path:
    """Return the local folder of a data set, fetched from the hub where it is none."""
    local = user_path(path, "dataset.path")
    if local.is_dir():
        return local.resolve()
    if not ID.fullmatch(path):
        raise BadInput(f"{local} is not a folder, and {path!r} is not an id of the hub, which is "
                       f"owner/name; give one of them as dataset.path")  # fmt: skip
    return _fetch(path, revision).resolve()


def _fetch(name: str, revision: str | None) -> Path:
    """Return the folder of a data set of the hub, fetched if it is not on disk."""
    wanted = [f"*{ending}" for ending in (*readable_endings(), ".parquet", ".csv", ".jsonl")]
    try:
        found = snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=wanted
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        at = "" if revision is None else f" --revision {revision}"
        raise BadInput(
            f"data set {name!r} is neither a folder nor on disk, and cannot be fetched: "
            f"{str(error).splitlines()[0]} Fetch it on a machine with network: "
            f"hf download --repo-type dataset {name}{at}"
        ) from error
    return Path(found)


# ---------------------------------------------------------------- Parquet shards


def _image_column(folder: Path, shards: Sequence[str], asked: str | None) -> str:
    """Return the one column that all shards have whose entries are structs with `bytes`."""
    columns = [set(_image_columns(folder / shard)) for shard in shards]
    shared = sorted(set.intersection(*columns))
    if asked in shared or (asked is None and len(shared) == 1):
        return asked or shared[0]
    what = f"no column {asked!r}" if asked else "several columns" if shared else "no column"
    there = ", ".join(shared or sorted(pq.read_schema(folder / shards[0]).names)) or "none"
    raise BadInput(
        f"the shards below {folder} have {what} of images (structs with `bytes`); they have "
        f"{there}; name one by dataset.image"
    )


def _image_columns(shard: Path) -> Iterator[str]:
    try:
        schema = pq.read_schema(shard)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{shard} cannot be read as parquet: {reason}; is it cut?") from error
    for field in schema:
        inside = field.type.get_field_index("bytes") if pa.types.is_struct(field.type) else -1
        if inside >= 0 and _is_bytes(field.type.field(inside).type):
            yield field.name


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _read_shard(folder: Path, shard: str, wanted: _Wanted) -> pd.DataFrame:
    """Return the wanted columns of a shard, rows named ``SHARD#ROW``."""
    table = read_table(folder / shard, wanted.names())
    return wanted.rows(table, [f"{shard}#{k:06d}" for k in range(len(table.places))])


# ---------------------------------------------------------------- folders with metadata


def _read_metadata(
    folder: Path, files: Sequence[str], wanted: _Wanted, links: bool
) -> list[pd.DataFrame]:
    """Return what the metadata files say of the images below a folder."""
    images = image_files(folder, links)
    if not files:
        for column in wanted.names():
            raise no_column(folder, column, ())
        return [pd.DataFrame(index=pd.Index(images))]
    parts, faults, told = [], [], set()
    for file in files:
        table = read_table(folder / file)
        names = [_below(file, name) for name in table.column(FILE)]
        told |= set(names)
        faults += _odd_names(folder, table, names, links)
        parts.append(wanted.rows(table, names))
    faults += [f"{name}: no metadata file names it" for name in images if name not in told]
    remedy = "give each image one row, under its path from the metadata file's folder"
    refuse(faults, f"rows of metadata and images below {folder} do not match", remedy)
    return parts


def _below(file: str, name: Any) -> str:
    """Return the path within the data set's folder of what a metadata file names."""
    return f"{PurePosixPath(file).parent / name}" if isinstance(name, str) else f"{name!r}"


def _odd_names(folder: Path, table: Table, names: Sequence[str], links: bool) -> Iterator[str]:
    """Yield the rows whose names cannot be those of images."""
    given = table.column(FILE)
    for place, cell, name in zip(table.places, given, names, strict=True):
        if why := escape(folder, cell, links=True) or escape(folder, name, links):
            yield f"{table.path.name}, {place}: {cell!r:.80}: {why}"
