"""Finished batches of a running cell, on disk: what a kill does not lose."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from latentbench.benchmark import Work
from latentbench.cache import content_hash, write_atomically
from latentbench.types import Samples


@dataclass(frozen=True)
class Finished:
    """One finished batch.

    Args:
        samples: the rows that count, or None where all failed.
        indices: image or path number of each row.
        failures: samples left out: group, index and cause.
        cost: what it took, the fields of `latentbench.cells.costs.Cost`.
    """

    samples: Samples | None
    indices: tuple[int, ...]
    failures: tuple[dict[str, str], ...] = ()
    cost: dict[str, Any] = field(default_factory=dict)


class Partial:
    """The working folder of one cell.

    Args:
        folder: where its files lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the JSON values under this name, made and stored on the first call."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            write_atomically(path, json.dumps(make(), allow_nan=False).encode())
        return json.loads(path.read_bytes())

    def has(self, work: Work) -> bool:
        """Return whether this batch is finished."""
        return self._path(work).is_file()

    def put(self, work: Work, finished: Finished) -> None:
        """Store a finished batch, whole or not at all."""
        samples = finished.samples
        meta = asdict(replace(finished, samples=None)) | {"texts": {}, "main": None}
        if samples is not None:
            meta |= {"texts": samples.texts(), "main": samples.main}
        tensors = {} if samples is None else samples.tensors()
        tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
        write_atomically(self._path(work), save(tensors, {"json": json.dumps(meta)}))

    def get(self, work: Work) -> Finished:
        """Return a stored batch."""
        with safe_open(self._path(work), "pt") as file:
            meta = json.loads(file.metadata()["json"])
            tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}
        texts: dict[str, Any] = {name: tuple(value) for name, value in meta.pop("texts").items()}
        main = meta.pop("main")
        meta["samples"] = Samples(main=main, **texts, **tensors) if texts else None
        meta["indices"], meta["failures"] = tuple(meta["indices"]), tuple(meta["failures"])
        return Finished(**meta)

    def clear(self, really: bool = True) -> None:
        """Remove the folder, if asked to."""
        if really:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, work: Work) -> Path:
        return self.folder / f"{content_hash(work.group, work.indices, work.kept)[:24]}.safetensors"


def join(parts: Sequence[Samples]) -> Samples:
    """Return the rows of all parts under each other."""
    first = parts[0]
    texts = {
        name: tuple(text for part in parts for text in part.texts()[name]) for name in first.texts()
    }
    tensors: dict[str, Any] = {
        name: torch.cat([part.tensors()[name] for part in parts]) for name in first.tensors()
    }
    return Samples(main=first.main, **texts, **tensors)


def in_order(
    store: Partial, works: Sequence[Work], groups: Sequence[str], chunk: int
) -> Iterator[Samples]:
    """Yield all rows by (group, number) in chunks of one size, one group after the other.

    The chunks depend on nothing but the rows: not on the batches that they were made in.
    """
    for group in groups:
        own = sorted((w for w in works if w.group == group), key=lambda w: min(w.indices))
        waiting: list[Samples] = []
        for work in own:
            found = store.get(work)
            if found.samples is not None:
                order = sorted(range(len(found.indices)), key=found.indices.__getitem__)
                waiting.append(found.samples.rows(order))
            while sum(map(len, waiting)) >= chunk:
                rows = join(waiting)
                yield rows.rows(range(chunk))
                waiting = [rows.rows(range(chunk, len(rows)))] if len(rows) > chunk else []
        if waiting:
            yield join(waiting)
