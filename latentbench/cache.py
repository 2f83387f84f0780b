"""A content-addressed store of tensors: what a hash says is known is never computed again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from latentbench import store

COST = "latentbench.cost"  # name under which an entry keeps what it cost to make
CARD = "latentbench.fit"  # name under which what was learned keeps a card: what it depends on
SUBJECT_KIND = "subject"  # of entries that were learned of single subjects
IMPORTED = "imported"  # in a card: sha256 of the file that it came from


class Cache:
    """Tensors by key, in a folder; every entry is sealed under its key and checked on read.

    A folder that cannot be written to costs time and nothing else: its entries are computed.

    An entry also keeps how many denoiser evaluations it cost, so that a method's whole cost is
    known when another cell has already done part of the work: `saved` sums what hits spared.

    Args:
        folder: where entries live, or None to compute always.
        meter: returns the (forward, backward) evaluations done so far.
        owner: whose entries they are, where another's would not do; part of the seal.

    Attributes:
        saved: evaluations that hits spared, forward and backward.
        imported: sha256 of each file from which something learned of single subjects came.
    """

    def __init__(
        self,
        folder: Path | None,
        meter: Callable[[], tuple[int, int]] | None = None,
        owner: str = "",
    ) -> None:
        self.folder, self.saved = folder, torch.zeros(2, dtype=torch.int64)
        self.imported: set[str] = set()
        self._owner = owner
        self._meter = meter or (lambda: (0, 0))

    def beside(self, folder: Path, owner: str) -> "Cache":
        """Return an owner's cache in another folder, whose hits count into this one's `saved`."""
        other = Cache(folder, self._meter, owner)
        other.saved = self.saved
        return other

    def cost(self) -> Tensor:
        """Return (forward, backward) evaluations so far, done and spared together."""
        return torch.tensor(self._meter()) + self.saved

    def get_or_make(
        self, kind: str, key: str, make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the entry, made by `make` if it is missing or damaged.

        Without a folder it is as it would be read from one, to the last bit of what is made of it:
        how a tensor lies in memory decides how sums are rounded.

        Args:
            kind: folder name, such as "inversion" or "fit".
            key: hash of all that the entry depends on.
            make: returns the tensors by name.
        """
        found = self.find(kind, key)
        if found is not None:
            return found
        before = self.cost()
        made = {name: value.detach().cpu().contiguous() for name, value in make().items()}
        if self.folder is None:
            return made
        try:
            self.put(kind, key, made, (self.cost() - before).tolist())
        except OSError as error:
            store.report_once(self.folder, error, store.NOT_KEPT)
        return made

    def put(self, kind: str, key: str, tensors: Mapping[str, Tensor], cost: Sequence[int]) -> None:
        """Write an entry.

        Args:
            kind: see `get_or_make`.
            key: see `get_or_make`.
            tensors: on the CPU, contiguous.
            cost: (forward, backward) evaluations that it took.

        Raises:
            OSError: it cannot be written.
        """
        assert self.folder is not None
        path, sealed_as = self._place(self.folder, kind, key)
        entry = {**tensors, COST: torch.tensor(cost, dtype=torch.int64)}
        store.write_sealed(path, sealed_as, save(entry))

    def find(self, kind: str, key: str) -> dict[str, Tensor] | None:
        """Return the entry, or None where it is missing or damaged; see `get_or_make`."""
        found = None if self.folder is None else _read(*self._place(self.folder, kind, key))
        if found is not None:
            self.saved += found.pop(COST)
        return found

    def _place(self, folder: Path, kind: str, key: str) -> tuple[Path, str]:
        """Return an entry's file, and the name that it is sealed under."""
        return folder / kind / key[:2] / f"{key}.sealed", f"{self._owner}{kind}/{key}"


def _read(path: Path, sealed_as: str) -> dict[str, Tensor] | None:
    body = store.read_sealed(path, sealed_as)
    try:
        return None if body is None else load(body)
    except SafetensorError as error:
        store.discard(path, f"cannot be read ({error})")
        return None
