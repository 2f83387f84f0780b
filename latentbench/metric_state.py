"""What a metric keeps of samples: merged from shards in any order, saved and resumed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

ROWS, SUMS = "rows/", "sums/"
IDS, GROUPS, GONE = "ids", "groups", "gone"
PARTS = 64  # pieces of a column at most; many small ones would keep freed memory from being reused


class Seen:
    """Columns with one row per sample, and sums.

    Rows of shards are concatenated; reading them in the `order` of their keys gives the same bytes
    for any split and any order of merging. Sums are added in the order in which they
    come, so shards agree with the whole up to float64 rounding (whole numbers: to the byte).

    Attributes:
        ids: image or path name of each row.
        groups: what each row is a case of.
        sums: tensors by name.
        gone: ids of rows that only sums remember.

    Example:
        >>> seen = Seen()
        >>> seen.append(["a"], ["all"], value=torch.ones(1))
        >>> other = Seen()
        >>> other.merge(seen.state())
        >>> other.column("value")
        tensor([1.])
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.groups: list[str] = []
        self.sums: dict[str, Tensor] = {}
        self.gone: set[str] = set()
        self._columns: dict[str, list[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, ids: Sequence[str], groups: Sequence[str], **columns: Tensor) -> None:
        """Add rows; every call gives the same columns."""
        self.ids += ids
        self.groups += groups
        for name, rows in columns.items():
            parts = self._columns.setdefault(name, [])
            parts.append(rows.detach().cpu())
            if len(parts) > PARTS:
                self._columns[name] = [torch.cat(parts)]

    def add(self, name: str, value: Tensor) -> None:
        """Add to a sum."""
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def columns(self) -> dict[str, Tensor]:
        """Return the columns by name, rows in the order in which they came."""
        return {name: torch.cat(parts) for name, parts in self._columns.items()}

    def column(self, name: str) -> Tensor:
        """Return one column."""
        return torch.cat(self._columns[name])

    def order(self) -> list[int]:
        """Return the rows in the order of their ids, then groups."""
        return sorted(range(len(self)), key=lambda k: (self.ids[k], self.groups[k]))

    def names(self) -> set[str]:
        """Return the ids seen so far."""
        return self.gone | set(self.ids)

    def drop_rows(self) -> None:
        """Forget the rows, of which sums remember what counts; their ids stay known."""
        self.gone |= set(self.ids)
        self.ids, self.groups, self._columns = [], [], {}

    def state(self) -> dict[str, Tensor]:
        """Return everything as tensors by name, which safetensors can hold."""
        text = {IDS: self.ids, GROUPS: self.groups, GONE: sorted(self.gone)}
        return (
            {name: as_tensor(value) for name, value in text.items()}
            | {ROWS + name: value for name, value in self.columns().items()}
            | {SUMS + name: value for name, value in self.sums.items()}
        )

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in what another shard has seen."""
        ids, groups, gone = (as_json(state[name]) for name in (IDS, GROUPS, GONE))
        rows = {n.removeprefix(ROWS): value for n, value in state.items() if n.startswith(ROWS)}
        self.append(ids, groups, **rows)
        self.gone |= set(gone)
        for name in state:
            if name.startswith(SUMS):
                self.add(name.removeprefix(SUMS), state[name])


def as_tensor(value: Any) -> Tensor:
    """Return a JSON value as bytes in a tensor.

    Example:
        >>> as_json(as_tensor(["a", "b"]))
        ['a', 'b']
    """
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def as_json(text: Tensor) -> Any:
    """Return the JSON value of `as_tensor`."""
    return json.loads(bytes(text.tolist()))
