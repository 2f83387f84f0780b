"""The record of a cell: typed, one JSON file per cell, the only source of everything shown."""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from latentbench.cache import write_atomically
from latentbench.errors import BadInput

log = logging.getLogger(__name__)
FILE = "record.json"
SAMPLES = "samples.parquet"
SCHEMA = 1


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
        overrides: the command line's settings beside the choices, such as "method.steps=20".
        reason: why it was skipped, or the error in one line.
        traceback: where a failed cell failed.
        scores: figure -> value with interval; "psnr/glasses+" is the figure of one group.
        main_score: the figure that the benchmark's table is sorted by.
        setup: what the benchmark found before the first image, such as matched strengths.
        switched_off: metric -> why it gave no figure.
        failed_samples: samples left out, each with group, index and cause.
        versions: class -> its version.
        weights: file or embedded name -> sha256.
        evaluations: denoiser evaluations by phase: forward, backward, and how many of them were
            spared because another cell had made the same inversion or fit.
        seconds: wall time by phase.
        memory: largest memory so far of the process, in MiB.
        batch_size: images a call at the end; smaller than asked for after out-of-memory.
        threads: CPU threads of torch.
        device: where networks ran.
        environment: packages, lock file, git, hardware.
        created: UTC time.
    """

    id: str
    status: Status
    names: Mapping[str, str]
    seed: int
    config: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    reason: str = ""
    traceback: str = ""
    scores: Mapping[str, ScoreEntry] = field(default_factory=dict)
    main_score: str = ""
    setup: Mapping[str, Any] = field(default_factory=dict)
    switched_off: Mapping[str, str] = field(default_factory=dict)
    failed_samples: tuple[Mapping[str, str], ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    batch_size: int = 0
    threads: int = 0
    device: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA

    def label(self, group: str) -> str:
        """Return the chosen option with its overridden settings: ``sdedit steps=20``."""
        mine = (text.split(".", 1) for text in self.overrides if text.startswith(f"{group}."))
        return " ".join([self.names[group], *(setting for _, setting in mine)])

    @property
    def title(self) -> str:
        """The cell in words: method on model, benchmark of data set, the seed where it is not 0."""
        what = f"{self.label('benchmark')} of {self.label('dataset')}"
        words = f"{self.label('method')} on {self.label('model')}, {what}"
        return words if self.seed == 0 else f"{words}, seed {self.seed}"

    def total(self, direction: str) -> int:
        """Return all denoiser evaluations, spared ones included: "forward" or "backward"."""
        return sum(phase.get(direction, 0) for phase in self.evaluations.values())

    def to_json(self) -> str:
        """Return the record as JSON; `from_json` gives it back."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Return the record of a JSON text.

        Raises:
            BadInput: not a record of this schema.
        """
        try:
            data = json.loads(text)
            known = {f.name for f in fields(cls)}
            values = {name: value for name, value in data.items() if name in known}
            values["status"] = Status(values["status"])
            values["overrides"] = tuple(values["overrides"])
            values["failed_samples"] = tuple(values["failed_samples"])
            values["scores"] = {k: ScoreEntry(**v) for k, v in values["scores"].items()}
            record = cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"not a record: {type(error).__name__}: {error}") from error
        if record.schema != SCHEMA:
            raise BadInput(f"record of schema {record.schema!r}, this code reads {SCHEMA}")
        return record


def write(record: Record, folder: Path) -> None:
    """Write `record.json` so that a reader sees all of it or none."""
    write_atomically(folder / FILE, record.to_json().encode())


def read(folder: Path) -> Record | None:
    """Return the record of a cell's folder, or None where there is none or it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Record.from_json(path.read_text())
    except BadInput as error:
        log.warning("%s is left out: %s", path, error)
        return None


def list_records(results: Path) -> list[tuple[Path, Record]]:
    """Return every (folder, record) below ``results/cells``, in the order of their names."""
    found = []
    for path in sorted((results / "cells").glob(f"*/{FILE}")):
        record = read(path.parent)
        if record is not None:
            found.append((path.parent, record))
    return sorted(found, key=lambda pair: _rank(pair[1]))


def read_samples(folder: Path) -> pd.DataFrame | None:
    """Return a cell's table, one row per image and output, or None where it cannot be read."""
    path = folder / SAMPLES
    if not path.is_file():
        return None
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        log.warning("%s is left out: %s", path, error)
        return None


def _rank(record: Record) -> tuple[Any, ...]:
    groups = ("benchmark", "model", "dataset", "method")
    return (*(record.names.get(g, "") for g in groups), record.overrides, record.seed, record.id)
