"""Finished batches of a running cell, on disk: what a kill does not lose."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from latentbench import store
from latentbench.benchmark import Work
from latentbench.cells.lock import held
from latentbench.content import content_hash
from latentbench.errors import BadInput
from latentbench.types import Samples

META = "json"  # name of the tensor that holds a batch's texts and numbers


@dataclass(frozen=True)
class Finished:
    """One finished batch.

    Args:
        samples: the rows that count, or None where all failed.
        indices: image or path number of each row.
        failures: samples left out: group, index and cause.
        cost: what it took, the fields of `latentbench.cells.costs.Cost`.
        imported: `Cache.imported` when it was made.
    """

    samples: Samples | None
    indices: tuple[int, ...]
    failures: tuple[dict[str, str], ...] = ()
    cost: dict[str, Any] = field(default_factory=dict)
    imported: tuple[str, ...] = ()


class Partial:
    """The working folder of one cell; every file is sealed under the cell's id and its own name.

    Where it cannot be written to, what it should hold is kept in memory.

    Args:
        folder: where its files lie.
        cell: the cell's id.
    """

    def __init__(self, folder: Path, cell: str) -> None:
        self.folder, self.cell = folder, cell
        self._kept: dict[str, bytes] = {}

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON values under this name, made and stored on the first call.

        Raises:
            BadInput: they are not JSON values; says which.
        """
        body = self._read(name)
        if body is None:
            body = _json(make(), name).encode()
            self._write(name, body)
        return json.loads(body)

    def put(self, work: Work, finished: Finished) -> None:
        """Store a finished batch, whole or not at all."""
        samples = finished.samples
        meta = asdict(replace(finished, samples=None)) | {"texts": {}, "places": {}}
        if samples is not None:
            meta |= {"texts": samples.texts(), "places": _places(samples)}
        tensors = {} if samples is None else samples.tensors()
        tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
        text = torch.frombuffer(bytearray(json.dumps(meta).encode()), dtype=torch.uint8)
        self._write(_name(work), save({**tensors, META: text}))

    def get(self, work: Work) -> Finished | None:
        """Return a stored batch, or None where it is missing or damaged."""
        body = self._read(_name(work))
        try:
            return None if body is None else _finished(body)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            store.discard(self._path(_name(work)), f"was written by other code ({error})")
            return None

    def has(self, work: Work) -> bool:
        """Return whether a batch is stored, unread."""
        return _name(work) in self._kept or self._path(_name(work)).exists()

    def held(
        self, work: Work, wait: bool, tell: Callable[[str], None]
    ) -> AbstractContextManager[None]:
        """Own a batch inside the block: one process makes it at a time; see `lock.held`."""
        return held(self.folder / "batches" / _name(work), wait, tell)

    def forget(self, work: Work) -> None:
        """Remove a stored batch."""
        self._kept.pop(_name(work), None)
        self._path(_name(work)).unlink(missing_ok=True)

    def _read(self, name: str) -> bytes | None:
        if name in self._kept:
            return self._kept[name]
        return store.read_sealed(self._path(name), f"{self.cell}/{name}")

    def _write(self, name: str, body: bytes) -> None:
        try:
            store.write_sealed(self._path(name), f"{self.cell}/{name}", body)
        except OSError as error:
            store.report_once(self.folder.parent.parent, error, "finished batches stay in memory")
            self._kept[name] = body

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.sealed"


def _name(work: Work) -> str:
    return content_hash(work.group, work.indices, work.kept)[:24]


def _finished(body: bytes) -> Finished:
    tensors: dict[str, Any] = load(body)
    meta = json.loads(tensors.pop(META).numpy().tobytes())
    texts: dict[str, Any] = {name: tuple(value) for name, value in meta.pop("texts").items()}
    places = meta.pop("places")
    meta["samples"] = Samples(**places, **texts, **tensors) if texts else None
    for name in ("indices", "failures", "imported"):
        meta[name] = tuple(meta.get(name, ()))
    return Finished(**meta)


def _json(values: dict[str, Any], name: str) -> str:
    try:
        return json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        odd = next(_odd(values, name), str(error))
        raise BadInput(
            f"the benchmark's {name} must give finite numbers, texts, lists and mappings; got {odd}"
        ) from error


def _odd(value: Any, where: str) -> Iterator[str]:
    """Yield the places that JSON cannot hold: ``setup.strengths.0 = nan``."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _odd(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            yield from _odd(inner, f"{where}.{k}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} = {value}"
    elif not isinstance(value, str | int | float | bool | None):
        yield f"{where} = {type(value).__name__}"


def join(parts: Sequence[Samples]) -> Samples:
    """Return the rows of all parts, stacked."""
    first = parts[0]
    texts = {
        name: tuple(text for part in parts for text in part.texts()[name]) for name in first.texts()
    }
    tensors: dict[str, Any] = {
        name: torch.cat([part.tensors()[name] for part in parts]) for name in first.tensors()
    }
    return Samples(**_places(first), **texts, **tensors)


def _places(samples: Samples) -> dict[str, Any]:
    return {"main": samples.main, "effect": samples.effect}


def in_order(
    get: Callable[[Work], Finished], works: Sequence[Work], groups: Sequence[str], chunk: int
) -> Iterator[Samples]:
    """Yield all rows by (group, number) in chunks of one size, one group after the other.

    The chunks depend on nothing but the rows: not on the batches that they were made in.

    Args:
        get: returns a finished batch.
        works: the batches.
        groups: the cell's groups, in their order.
        chunk: rows at a time.
    """
    for group in groups:
        own = sorted((w for w in works if w.group == group), key=lambda w: min(w.indices))
        waiting: list[Samples] = []
        for work in own:
            found = get(work)
            if found.samples is not None:
                order = sorted(range(len(found.indices)), key=found.indices.__getitem__)
                waiting.append(found.samples.rows(order))
            while sum(map(len, waiting)) >= chunk:
                rows = join(waiting)
                yield rows.rows(range(chunk))
                waiting = [rows.rows(range(chunk, len(rows)))] if len(rows) > chunk else []
        if waiting:
            yield join(waiting)
