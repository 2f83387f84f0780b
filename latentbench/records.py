"""The record of a cell: typed, one JSON file per cell, the only source of everything shown.

A record is sealed: it holds a hash over itself and one of each file next to it, and it is kept in
the folder of its own id. One that was changed, cut, copied elsewhere or whose files are not the
ones it was written with is left out with a warning, and its cell is computed again when it is next
asked for. Seals find damage and mix-ups; they are not a signature (docs/security.md).
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum, StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from latentbench import store
from latentbench.config import Runtime
from latentbench.content import id_of
from latentbench.errors import BadInput
from latentbench.intervals import Kind

log = logging.getLogger(__name__)
FILE = "record.json"
SAMPLES = "samples.parquet"
IMAGES = "images.parquet"
GRID = "grid.webp"
SCHEMA = 2
UNSEALED = 1  # schema of records that were written before there were seals
GROUPS = ("benchmark", "method", "model", "dataset")
SEAL = "seal"
IN_YAML = {"True": "true", "False": "false", "None": "null"}
HEADLINE, EFFECT = "headline", "effect"  # columns of samples: which outputs count for a figure
COLUMNS = {"id": "O", "group": "O", "output": "iu", HEADLINE: "b"}  # of samples; kinds of numpy


class Status(StrEnum):
    """How a cell ended."""

    OK = "ok"
    SKIPPED = "skipped"  # these parts do not go together; `reason` says why
    FAILED = "failed"  # `reason` is the error, `traceback` where


@dataclass(frozen=True)
class ScoreEntry:
    """One figure of a record.

    Args:
        value: the figure, or None where there is none; `note` says why.
        n: independent units (images, paths) behind it.
        low: lower end of the 95% interval, or None.
        high: upper end of the 95% interval, or None.
        note: what a reader must know.
        unit: "dB", "" for dimensionless.
        higher_is_better: direction, or None.
        replicates: the figure without each group of images, for paired tests of such figures.
        every_row: whether rows that miss the matched effect count as well.
        at: column of the samples that says which outputs count: "headline" or "effect".
        kind: what the figure is made of, which decides its interval.
        range: smallest and largest possible value, None where there is none.
        smallest: the smallest difference that matters, None where it depends on the board.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""
    unit: str = ""
    higher_is_better: bool | None = None
    replicates: tuple[float, ...] = ()
    every_row: bool = False
    at: str = HEADLINE
    kind: Kind = Kind.MEAN
    range: tuple[float | None, float | None] = (None, None)
    smallest: float | None = None

    def __post_init__(self) -> None:
        finite = all(map(math.isfinite, self.replicates))
        object.__setattr__(self, "replicates", tuple(self.replicates) if finite else ())
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                object.__setattr__(self, name, None)
                object.__setattr__(self, "note", f"{name} was {number}. {self.note}".strip())


@dataclass(frozen=True)
class Record:
    """One cell: what was asked, what came out, and what it took.

    Args:
        id: hash of everything that decides the scores.
        status: ok, skipped or failed.
        names: group ("benchmark", "method", "model", "dataset") -> the chosen option.
        seed: of everything random.
        config: the resolved settings that the id is a hash of, defaults filled in.
        identity: what else the id is a hash of, besides config, versions and weights.
        overrides: the command line's settings besides the choices, such as "method.steps=20".
        reason: why it was skipped, or the error in one line.
        traceback: where a failed cell failed.
        may_pass: whether it failed for want of something that may be there next time, such as
            memory, disk, network or a package; it is then computed again when asked for.
        scores: figure -> value with interval; "psnr/glasses+" is the figure of one group.
        main_score: the figure that the benchmark's table is sorted by.
        setup: what the benchmark found before the first image, such as matched strengths.
        imported_fit: sha256 of the file that the method's fit was imported from; "" where the
            method learned in a cell of this cache.
        imported_subjects: the same of what was learned of single subjects, such as words.
        switched_off: metric -> why it gave no figure.
        failed_samples: samples left out, each with group, index and cause.
        asked: samples that were asked for, those left out included; 0 where that is not known.
        files: name of each file next to the record -> its sha256.
        versions: class -> its version.
        weights: file or embedded name -> sha256.
        evaluations: denoiser evaluations by phase: forward, backward, and how many of them were
            spared because the same inversion or fit was there, made by this cell or another.
        seconds: wall time by phase.
        memory: largest memory so far of the process, in MiB.
        batch_size: images a call at the end; smaller than asked for after out-of-memory.
        threads: CPU threads of torch.
        device: where networks ran.
        runtime: the settings of `runtime` that it was computed under.
        environment: packages, lock file, git, hardware.
        created: UTC time.
    """

    id: str
    status: Status
    names: Mapping[str, str]
    seed: int
    config: Mapping[str, Any]
    identity: Mapping[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    reason: str = ""
    traceback: str = ""
    may_pass: bool = False
    scores: Mapping[str, ScoreEntry] = field(default_factory=dict)
    main_score: str = ""
    setup: Mapping[str, Any] = field(default_factory=dict)
    imported_fit: str = ""
    imported_subjects: tuple[str, ...] = ()
    switched_off: Mapping[str, str] = field(default_factory=dict)
    failed_samples: tuple[Mapping[str, str], ...] = ()
    asked: int = 0
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 0
    threads: int = 0
    device: str = ""
    runtime: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA

    def label(self, group: str) -> str:
        """Return the chosen option with its overridden settings: ``sdedit steps=20``.

        Settings are sorted by name, however they were typed, and their values spelled as in yaml:
        a sweep's overrides have True where a cell's has true.
        """
        mine = (text.split(".", 1) for text in self.overrides if text.startswith(f"{group}."))
        settings = sorted(setting.partition("=") for _, setting in mine)
        words = (f"{name}{sign}{IN_YAML.get(value, value)}" for name, sign, value in settings)
        return " ".join([self.names[group], *words])

    @property
    def title(self) -> str:
        """The cell in words: method on model, benchmark of data set, the seed where it is not 0."""
        what = f"{self.label('benchmark')} of {self.label('dataset')}"
        words = f"{self.label('method')} on {self.label('model')}, {what}"
        return words if self.seed == 0 else f"{words}, seed {self.seed}"

    def words(self) -> tuple[str, ...]:
        """Return what follows ``python runner.py`` to make this cell from the yamls of its code.

        Settings of `runtime` are given where they are not the usual ones.
        """
        usual = dict(_flat("runtime", asdict(Runtime())))
        runtime = {k: v for k, v in _flat("runtime", self.runtime) if v != usual.get(k)}
        return (
            *(f"{group}={self.names[group]}" for group in GROUPS),
            *(f"++{text}" for text in self.overrides),
            *((f"seed={self.seed}",) if self.seed else ()),
            *(f"{name}={value}" for name, value in runtime.items()),
        )

    @property
    def digest(self) -> str:
        """A hash of all that it says, and by its seals of the files next to it."""
        return hashlib.sha256(_typed().dump_json(self)).hexdigest()

    def total(self, direction: str) -> int:
        """Return all denoiser evaluations, spared ones included: "forward" or "backward"."""
        return sum(phase.get(direction, 0) for phase in self.evaluations.values())

    @property
    def sealed(self) -> bool:
        """Whether it was written under a seal: otherwise damage cannot be noticed."""
        return self.schema != UNSEALED

    def failed_share(self) -> float:
        """Return the share of samples that were left out; 1 where it is not known."""
        return 0.0 if not self.failed_samples else len(self.failed_samples) / (self.asked or 1)

    def to_json(self) -> str:
        """Return the record as sealed JSON; `from_json` gives it back.

        Raises:
            TypeError, ValueError: a value that JSON cannot hold.
        """
        data = json.loads(json.dumps(_escaped(asdict(self)), allow_nan=False))
        return json.dumps(sealed(data), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Record":
        """Return the record of a JSON text.

        Raises:
            BadInput: not a record of a schema that this code reads, or not as it was written.
        """
        try:
            data = json.loads(text, parse_constant=_refuse)
            if not isinstance(data, dict):
                raise BadInput(f"not a record: {type(data).__name__}")
            schema = data.get("schema")
            if schema not in (SCHEMA, UNSEALED):
                raise BadInput(f"record of schema {schema!r}, this code reads {SCHEMA}")
            if schema == SCHEMA and data.get(SEAL) != _seal(data):
                raise BadInput("its content does not fit its seal: it was changed or damaged")
            record = _typed().validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise BadInput(f"not a record: {where}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"not a record: {type(error).__name__}: {error}") from error
        lacking = [group for group in GROUPS if group not in record.names]
        if lacking:
            raise BadInput(f"not a record: names lacks {', '.join(lacking)}")
        return record


def write(record: Record, folder: Path) -> Record:
    """Write `record.json` so that a reader sees all of it or none.

    Returns:
        What was written: a record with a value that JSON cannot hold is written as failed, with
        that value in words.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    try:
        text = record.to_json()
        Record.from_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        record = _as_failed(record, error)
        text = record.to_json()
    store.write(folder / FILE, text.encode())
    return record


def load(folder: Path) -> Record:
    """Return the record of a cell's folder.

    Raises:
        BadInput: it is damaged, of another folder, or its files are not its own.
        OSError: it cannot be read.
    """
    record = Record.from_json((folder / FILE).read_bytes())
    _check_place(record, folder)
    return record


def read(folder: Path) -> Record | None:
    """Return the record of a cell's folder, or None where there is none that holds.

    One that `load` refuses is left out with a warning.
    """
    try:
        return load(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, BadInput) as error:
        log.warning("%s is left out: %s", folder / FILE, error)
        return None


def newer_schema(folder: Path) -> int | None:
    """Return the schema of a folder's record where a later version of this code wrote it."""
    try:
        schema = json.loads((folder / FILE).read_bytes()).get("schema")
    except (OSError, ValueError, AttributeError, RecursionError):  # none, or damaged
        return None
    return schema if isinstance(schema, int) and schema > SCHEMA else None


def list_records(results: Path) -> list[tuple[Path, Record]]:
    """Return every (folder, record) below ``results/cells``, in the order of their names."""
    found = []
    for path in sorted((results / "cells").glob(f"*/{FILE}")):
        record = read(path.parent)
        if record is not None:
            found.append((path.parent, record))
    warn_of_unsealed([record.sealed for _, record in found], results)
    return sorted(found, key=lambda pair: rank(pair[1]))


def warn_of_unsealed(sealed: Sequence[bool], results: Path) -> None:
    """Warn of records that were written before there were seals.

    Args:
        sealed: of each record, whether it has a seal.
        results: where they are.
    """
    if not all(sealed):
        log.warning("%d of %d records have no seal; damage to them is not noticed (%s)",
                    len(sealed) - sum(sealed), len(sealed), results)  # fmt: skip


def read_samples(folder: Path) -> pd.DataFrame | None:
    """Return a cell's table, one row per image and output, or None where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq  # late: to read records alone takes neither

    path = folder / SAMPLES
    if not path.is_file():
        return None
    try:
        table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read(use_threads=False)
        samples = table.to_pandas(use_threads=False)  # half the time of `pd.read_parquet`
        _check_columns(samples)
    except Exception as error:  # whatever a reader of damaged bytes raises
        log.warning("%s is left out: %s", path, error)
        return None
    return samples


def rank(record: Record) -> tuple[Any, ...]:
    """Return what records are sorted by wherever they are listed."""
    groups = ("benchmark", "model", "dataset", "method")
    return (*(record.names.get(g, "") for g in groups), record.overrides, record.seed, record.id)


def _check_place(record: Record, folder: Path) -> None:
    """Refuse a record that is not of this folder, or whose files are not its own.

    Raises:
        BadInput: says what does not fit.
    """
    if folder.name != record.id:
        raise BadInput(f"it is the record of cell {record.id}, copied or moved here")
    parts = {"config": record.config, "versions": record.versions, "weights": record.weights}
    if record.identity and id_of({**parts, **record.identity}) != record.id:
        raise BadInput(f"its settings are not those of cell {record.id}")
    for name, digest in record.files.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise BadInput(f"{name} is missing from its folder")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise BadInput(f"{name} is not the file that the record was written with")
    if record.status is Status.OK and not record.sealed and read_samples(folder) is None:
        raise BadInput(f"{SAMPLES} in its folder is missing or damaged")


def _check_columns(samples: pd.DataFrame) -> None:
    for name in samples.columns:
        kinds = COLUMNS.get(name, "fiub")
        if samples[name].dtype.kind not in kinds:
            raise BadInput(f"its column {name!r} holds {samples[name].dtype}")
    lacking = [name for name in COLUMNS if name not in samples]
    if lacking:
        raise BadInput(f"it has no column {', '.join(lacking)}")


@cache
def _typed() -> TypeAdapter:
    return TypeAdapter(Record)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the settings of a section under their whole names, as a command line has them."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    else:
        yield name, value.name if isinstance(value, Enum) else str(value)


def _refuse(constant: str) -> None:
    raise BadInput(f"not a record: it holds {constant}")


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON values of a record with the seal over them."""
    return {**data, SEAL: _seal(data)}


def _seal(data: Mapping[str, Any]) -> str:
    content = {name: value for name, value in data.items() if name != SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_failed(record: Record, error: Exception) -> Record:
    """Return a record that JSON can hold, of one that it cannot."""
    reason = f"the record cannot be written as JSON: {type(error).__name__}: {error}"
    return Record(
        id=record.id,
        status=Status.FAILED,
        names={group: str(name) for group, name in record.names.items()},
        seed=record.seed,
        config=in_words(record.config),
        overrides=tuple(map(str, record.overrides)),
        reason=str(record.reason) if record.status is Status.FAILED else reason,
        traceback=str(record.traceback),
        may_pass=record.may_pass,
        versions=record.versions,
        weights=record.weights,
        runtime=in_words(record.runtime),
        environment=in_words(record.environment),
        created=record.created,
    )


def in_words(value: Any) -> Any:
    """Return a value that JSON can hold; what is not a finite number or container becomes text."""
    if isinstance(value, Mapping):
        return {str(key): in_words(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [in_words(inner) for inner in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    try:
        return str(value)
    except Exception as error:
        return f"{type(value).__name__} without words ({type(error).__name__})"


def _escaped(value: Any) -> Any:
    """Return a value whose texts UTF-8 can hold: half a surrogate pair is written as an escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_escaped(key): _escaped(inner) for key, inner in value.items()}
    return [_escaped(inner) for inner in value] if isinstance(value, list | tuple) else value
