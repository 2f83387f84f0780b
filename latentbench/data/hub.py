"""`dataset=hub`: a data set of the Hugging Face hub, or a local folder in the hub's layouts."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from latentbench.data.sources import SUFFIXES, Files, Parquet, Source, image_files, stamp
from latentbench.data.table import PROMPT, SPLIT, ImageTable, deal_official, side_of
from latentbench.errors import BadInput

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE = "file_name"


class Hub(ImageTable):
    """Images in Parquet shards, or in folders with `metadata.csv`, `.jsonl` or `.parquet`.

    Shards and folders whose names say train, validation or test keep to their side: training
    images go to "generator" and "judge", all others to "calibration" and "test".

    Args:
        path: id of a data set (``owner/name``), or a folder of the same layout.
        revision: branch, tag or commit of the hub; None for the newest.
        prompt: column that holds captions, or None.
        factors: columns of numbers in [0, 1].
        size: pixels per side; None until a model gives its own.
        limit: only the first images of each split, by name; None for all.

    Raises:
        BadInput: not on disk and no network (the message has the command that fetches it), another
            layout, a column that is not there, or images that cannot be read.

    Example:
        ``Hub(path="owner/faces", prompt="text", limit=500)``
    """

    def __init__(
        self,
        *,
        path: str,
        revision: str | None = None,
        prompt: str | None = None,
        factors: Sequence[str] = (),
        size: int | None = None,
        limit: int | None = None,
    ) -> None:
        self.folder = Path(path) if Path(path).is_dir() else _fetch(path, revision)
        self._image_column = None
        shards = sorted(p for p in self.folder.rglob("*.parquet") if p.name not in METADATA)
        if shards:
            self._image_column = _image_column(shards[0])
        known = _read_shards(self.folder, shards) if shards else _read_metadata(self.folder)
        rows = _chosen(known, prompt, factors)
        names = [str(name) for name in rows.index]
        splits = deal_official(names, [side_of(name) for name in names])
        super().__init__(rows.assign(**{SPLIT: splits}), size, limit)

    def source(self, names: tuple[str, ...]) -> Source:
        """Return the shards or the files."""
        if self._image_column is None:
            return Files(self.folder, stamp(self.folder, names))
        shards = sorted({name.rsplit("#", 1)[0] for name in names})
        return Parquet(self.folder, stamp(self.folder, shards), self._image_column, names)


def _fetch(name: str, revision: str | None) -> Path:
    """Return the folder of a data set of the hub, fetched if it is not on disk."""
    wanted = [f"*{suffix}" for suffix in (*SUFFIXES, ".parquet", ".csv", ".jsonl")]
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


def _image_column(shard: Path) -> str:
    """Return the first column whose entries are structs with `bytes`, as `datasets` writes them."""
    schema = pq.read_schema(shard)
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return field.name
    raise BadInput(
        f"{shard} has no column of images (structs with `bytes`); it has {', '.join(schema.names)}"
    )


def _read_shards(folder: Path, shards: Sequence[Path]) -> pd.DataFrame:
    """Return all columns but the images, rows named ``SHARD#ROW``."""
    parts = []
    for shard in shards:
        image = _image_column(shard)
        columns = [name for name in pq.read_schema(shard).names if name != image]
        part = pq.read_table(shard, columns=columns).to_pandas()
        count = pq.ParquetFile(shard).metadata.num_rows
        name = shard.relative_to(folder).as_posix()
        parts.append(part.set_index(pd.Index([f"{name}#{k:06d}" for k in range(count)])))
    return pd.concat(parts)


def _read_metadata(folder: Path) -> pd.DataFrame:
    """Return what the metadata files say of the images below a folder."""
    names = image_files(folder)
    found = sorted(path for name in METADATA for path in folder.rglob(name))
    parts = [_read_one(path, folder) for path in found]
    if not parts:
        return pd.DataFrame(index=pd.Index(names))
    rows = pd.concat(parts)
    bare = sorted(set(names) - set(rows.index))
    if bare:
        raise BadInput(f"no metadata file below {folder} tells of {bare[0]} ({len(bare)} in all)")
    return rows


def _read_one(path: Path, folder: Path) -> pd.DataFrame:
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": _read_lines}
    rows = readers[path.suffix](path)
    if FILE not in rows:
        raise BadInput(f"{path} has no column {FILE!r}; it has {', '.join(map(str, rows.columns))}")
    place = path.parent.relative_to(folder)
    return rows.set_index(rows[FILE].map(lambda name: (place / str(name)).as_posix()))


def _read_lines(path: Path) -> pd.DataFrame:
    lines = path.read_text(encoding="utf-8").splitlines()
    return pd.DataFrame([json.loads(line) for line in lines if line.strip()])


def _chosen(known: pd.DataFrame, prompt: str | None, factors: Sequence[str]) -> pd.DataFrame:
    """Return the columns that were asked for."""
    wanted = [*factors, *([] if prompt is None else [prompt])]
    absent = [name for name in wanted if name not in known]
    if absent:
        there = ", ".join(map(str, known.columns)) or "none"
        raise BadInput(f"the data set has no column {absent[0]!r}; its columns: {there}")
    rows = known.loc[:, list(factors)]
    return rows if prompt is None else rows.assign(**{PROMPT: known[prompt]})
