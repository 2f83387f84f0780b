"""Records as tables for other programs: CSV, Parquet, or a folder in the form of a hub's data set.

Three tables: `figures` (one row per cell and figure), `samples` (one row per image and output) and
`images` (one row per picture that was kept). The folder for the Hugging Face hub holds them as
subsets, with a README.md that names them (huggingface.co/docs/hub/datasets-manual-configuration);
`images` has an `image` column of the hub's type for images, so that its viewer shows them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from latentbench import records, store
from latentbench.errors import BadInput
from latentbench.records import GROUPS, Record
from latentbench.reports.boards import KEYS, Found
from latentbench.reports.leaderboard import in_csv

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # identifiers of the hub, such as cc-by-4.0
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})  # of the hub's images
CELL = {"cell": "id of the cell", **{group: f"its {group}" for group in GROUPS}, "seed": "its seed"}
COLUMNS = {
    "figures": CELL
    | {
        "status": "ok, skipped or failed", "reason": "why it is skipped, or its error",
        "figure": "name of the figure; after a slash, of one group of images",
        "value": "the figure", "low": "lower end of its 95% interval", "high": "upper end",
        "n": "images or paths behind it", "unit": "its unit",
        "higher_is_better": "its direction", "main": "whether the benchmark ranks by it",
        "note": "what a reader must know", "forward": "denoiser evaluations of the cell",
        "backward": "its backward evaluations", "seconds": "its wall time",
        "commit": "git commit of the code", "dirty": "whether the code had other changes",
        "created": "UTC time",
    },
    "samples": CELL
    | {
        "id": "image or path", "group": "what it is a case of, such as an edit",
        "output": "number of the output", "...": "one column per figure of single images",
    },
    "images": CELL
    | {
        "id": "image or path", "group": "what it is a case of, such as an edit",
        "role": "source, region, reconstruction, output, truth, from or to",
        "output": "number of the output", "strength": "its strength", "image": "the picture",
    },
}  # fmt: skip


class Format(StrEnum):
    """What an export is written as."""

    CSV = "csv"
    PARQUET = "parquet"
    HF = "hf"


def export(found: Sequence[Found], folder: Path, form: Format, licence: str) -> list[Path]:
    """Write the tables of some cells, and return the files.

    Args:
        found: folders and records.
        folder: where to write; it is there.
        form: csv (without pictures), parquet, or hf.
        licence: identifier of the data's licence, for the card of a hub's data set.

    Raises:
        BadInput: the licence is no identifier.
        OSError: a file cannot be written.
    """
    if not LICENCE.fullmatch(licence):
        raise BadInput(f"the licence must be an identifier such as cc-by-4.0, got {licence!r}")
    tables = {"figures": _figures(found), "samples": _samples(found), "images": _images(found)}
    tables = {name: table for name, table in tables.items() if table is not None}
    if form is Format.CSV:
        plain = {name: table for name, table in tables.items() if name != "images"}
        return [_written(folder / f"{name}.csv", _csv(table)) for name, table in plain.items()]
    inner = "data/" if form is Format.HF else ""
    paths = [
        _written(folder / f"{inner}{name}.parquet", _parquet(table))
        for name, table in tables.items()
    ]
    if form is Format.HF:
        text = card({name: table.num_rows for name, table in tables.items()}, found, licence)
        paths.append(_written(folder / "README.md", text.encode()))
    return paths


def card(rows: dict[str, int], found: Sequence[Found], licence: str) -> str:
    """Return the card of a hub's data set: a YAML header, and what the columns hold.

    Args:
        rows: table -> number of its rows.
        found: folders and records.
        licence: identifier of the data's licence.
    """
    subsets = "\n".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: data/{name}.parquet"
        + ("\n  default: true" if name == "figures" else "")
        for name in rows
    )
    header = (
        f"---\npretty_name: latentbench records\nlicense: {licence}\n"
        f"tags:\n- benchmark\n- image-editing\n- latent-space\nconfigs:\n{subsets}\n---\n"
    )
    benchmarks = sorted({record.names["benchmark"] for _, record in found})
    parts = [
        header,
        "# latentbench records\n",
        f"{len(found)} cells of {', '.join(benchmarks)}: a cell is one method on one model, data "
        "set and benchmark. Figures have 95% intervals.\n",
    ]
    for name, count in rows.items():
        lines = [f"| `{column}` | {words} |" for column, words in COLUMNS[name].items()]
        heading = f"## {name}\n\n{count} rows.\n\n| column | holds |\n|---|---|\n"
        parts.append(heading + "\n".join(lines) + "\n")
    return "\n".join(parts)


# ---------------------------------------------------------------- tables


def _figures(found: Sequence[Found]) -> pa.Table:
    rows = [row for _, record in found for row in _figure_rows(record)]
    return pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False)


def _figure_rows(record: Record) -> Iterator[dict[str, Any]]:
    there = record.environment
    cell = _cell(record) | {"status": str(record.status), "reason": record.reason}
    costs = {way: record.total(way) for way in ("forward", "backward")}
    costs |= {"seconds": sum(record.seconds.values()), "commit": there.get("git_commit")}
    costs |= {"dirty": there.get("git_dirty"), "created": record.created}
    for name, entry in record.scores.items():
        own = ("value", "low", "high", "n", "unit", "higher_is_better", "note")
        figure = {"figure": name, **{part: getattr(entry, part) for part in own}}
        yield cell | figure | {"main": name == record.main_score} | costs
    if not record.scores:
        yield cell | costs


def _samples(found: Sequence[Found]) -> pa.Table | None:
    """Return all rows of samples; figures that a cell has not are null."""
    tables = []
    for folder, record in found:
        samples = records.read_samples(folder)
        if samples is not None:
            columns = [*KEYS, *samples.columns.difference(KEYS, sort=False)]
            tables.append(samples[columns].assign(**_cell(record)))
    if not tables:
        return None
    whole = pd.concat(tables, ignore_index=True)
    return pa.Table.from_pandas(
        whole[[*CELL, *whole.columns.difference([*CELL], sort=False)]], preserve_index=False
    )


def _images(found: Sequence[Found]) -> pa.Table | None:
    rows = [row for folder, record in found for row in _image_rows(folder, record)]
    if not rows:
        return None
    plain = pd.DataFrame([{k: v for k, v in row.items() if k != "image"} for row in rows])
    table = pa.Table.from_pandas(plain, preserve_index=False)
    pictures = [{"bytes": row["image"], "path": None} for row in rows]
    return _as_images(table.append_column("image", pa.array(pictures, IMAGE)))


def _as_images(table: pa.Table) -> pa.Table:
    """Return a table whose metadata say which column holds images, as the hub's own tables do."""
    features = {
        field.name: {"_type": "Image"}
        if field.name == "image"
        else {"dtype": _dtype(field.type), "_type": "Value"}
        for field in table.schema
    }
    info = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({**(table.schema.metadata or {}), "huggingface": info})


def _dtype(kind: pa.DataType) -> str:
    """Return the hub's name of a type."""
    if pa.types.is_large_string(kind):
        return "large_string"
    return {"double": "float64"}.get(str(kind), str(kind))


def _image_rows(folder: Path, record: Record) -> Iterator[dict[str, Any]]:
    path = folder / records.IMAGES
    if not path.is_file():
        return
    for kept in pd.read_parquet(path).to_dict("records"):
        who = _cell(record) | {"id": kept["id"], "group": kept["group"]}
        for role, number, strength, image in _pictures(kept):
            yield who | {"role": role, "output": number, "strength": strength, "image": image}


def _pictures(kept: dict[Any, Any]) -> Iterator[tuple[str, int | None, float | None, bytes]]:
    """Yield role, number of the output, strength and bytes of each picture of a row."""
    for role in ("source", "region", "reconstruction"):
        if kept[role] is not None:
            yield role, None, None, kept[role]
    for role, image in zip(("from", "to"), kept["ends"], strict=False):
        yield role, None, None, image
    strengths = list(kept["strengths"]) or [None] * len(kept["outputs"])
    for role, images in (("output", kept["outputs"]), ("truth", kept["truths"])):
        for k, image in enumerate(images):
            yield role, k, strengths[k] if k < len(strengths) else None, image


def _cell(record: Record) -> dict[str, Any]:
    return {"cell": record.id, **{g: record.label(g) for g in GROUPS}, "seed": record.seed}


# ---------------------------------------------------------------- files


def _csv(table: pa.Table) -> bytes:
    safe = table.to_pandas().map(in_csv)
    return safe.to_csv(index=False, lineterminator="\n").encode()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _written(path: Path, data: bytes) -> Path:
    store.write(path, data)
    return path
