"""What a method's `fit` keeps on disk while it runs: a killed fit goes on where it stopped."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from latentbench import store

STEP = "step"
STATE = "optimizer"


@dataclass(frozen=True)
class Fitting:
    """Counts the steps of a fit and keeps its tensors on disk.

    Args:
        folder: where unfinished fits are kept, or None to keep nothing.
        seconds: time between two saves.
        report: called with (step, count) after each step, for a progress bar.
        cell: id of the cell that they belong to.

    Example:
        >>> word = torch.zeros(3)
        >>> for step in Fitting(None).steps("words", 2, {"word": word}):
        ...     word += 1
        >>> word
        tensor([2., 2., 2.])
    """

    folder: Path | None
    seconds: float = 30.0
    report: Callable[[int, int], None] = lambda step, count: None
    cell: str = ""

    def steps(
        self,
        name: str,
        count: int,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Iterator[int]:
        """Yield the numbers of the steps that are left; the tensors are restored before the first.

        Whatever else a step draws must depend on its number alone, as `Streams` make it.

        Args:
            name: distinguishes several loops of one fit.
            count: number of steps in all.
            tensors: what the steps change in place, by name.
            optimizer: its state is kept as well.
        """
        first, saved = self._restore(name, tensors, optimizer), time.monotonic()
        for step in range(first, count):
            yield step
            self.report(step + 1, count)
            if time.monotonic() - saved >= self.seconds or step == count - 1:
                self._save(name, step + 1, tensors, optimizer)
                saved = time.monotonic()

    def _key(self, folder: Path, name: str) -> str:
        """Return what a file is sealed under: a cell has a folder per seed that it fits with."""
        return f"{self.cell}/{folder.name}/{name}"

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{name}.safetensors"

    def _save(
        self,
        name: str,
        step: int,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        path = self._path(name)
        if path is None:
            return
        kept = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        words: dict[str, Any] = {STEP: step}
        if optimizer is not None:
            own, words[STATE] = _flat(optimizer.state_dict())
            kept |= own
        try:
            body = save(kept, {"json": json.dumps(words)})
            store.write_sealed(path, self._key(path.parent, name), body)
        except OSError as error:
            store.report_once(path.parent, error, "a killed fit begins again")

    def _restore(
        self, name: str, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None
    ) -> int:
        path = self._path(name)
        data = None if path is None else store.read_sealed(path, self._key(path.parent, name))
        if path is None or data is None:
            return 0
        kept, words = load(data), _words(data)
        if {k: v.shape for k, v in tensors.items()} != {
            k: kept[k].shape for k in tensors if k in kept
        }:
            store.discard(path, "was written by other code")
            return 0
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(kept[key])
        if optimizer is not None:
            optimizer.load_state_dict(_nested(kept, words[STATE]))
        return int(words[STEP])


def _words(data: bytes) -> dict[str, Any]:
    """Return the JSON words in the header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["json"])


def _flat(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors by name, and what is left as JSON values."""
    tensors, numbers = {}, {}
    for index, entries in state["state"].items():
        for key, value in entries.items():
            place = f"{STATE}/{index}/{key}"
            if isinstance(value, Tensor):
                tensors[place] = value.detach().cpu().contiguous()
            else:
                numbers[place] = value
    return tensors, {"numbers": numbers, "groups": state["param_groups"]}


def _nested(tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that `_flat` took apart."""
    state: dict[int, dict[str, Any]] = {}
    own = {k: v for k, v in tensors.items() if k.startswith(f"{STATE}/")}
    for place, value in {**own, **words["numbers"]}.items():
        _, index, key = place.split("/", 2)
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": words["groups"]}
