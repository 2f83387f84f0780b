"""A content-addressed store of tensors: what a hash says is known is never computed again."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from latentbench import store


def content_hash(*parts: Any) -> str:
    """Return a sha256 over tensors (dtype, shape, bytes), bytes, JSON values and nests of them.

    Other parts have other hashes: each is hashed with its kind and its length. Two things count as
    the same: a tuple and a list, and mappings whose items come in another order.

    Raises:
        TypeError: a part of another kind, whose text need not tell it from others.

    Example:
        >>> content_hash(1, ["a"]) == content_hash(1, ("a",))
        True
        >>> content_hash("a", "b") == content_hash(["a", "b"])
        False
    """
    digest = hashlib.sha256()
    encode(parts, digest.update)
    return digest.hexdigest()


def encode(part: Any, write: Callable[[bytes | memoryview], object]) -> None:
    """Write a part's code in pieces: a letter for its kind, its length, a colon, its content.

    A reader of a code knows at every byte what comes next, so no two parts share one.

    Raises:
        TypeError: see `content_hash`.
    """
    if isinstance(part, str):
        text = part.encode("utf-8", "surrogatepass")
        write(b"s%d:%b" % (len(text), text))
    elif part is None or isinstance(part, bool):
        write({None: b"n0:", False: b"b1:0", True: b"b1:1"}[part])
    elif isinstance(part, int | float):
        text = b"%x" % part if isinstance(part, int) else float(part).hex().encode()
        write(b"%b%d:%b" % (b"i" if isinstance(part, int) else b"f", len(text), text))
    elif isinstance(part, bytes):
        write(b"y%d:" % len(part))
        write(part)
    elif isinstance(part, Tensor):
        flat = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        write(b"t%d:" % len(flat))
        encode((str(part.dtype), part.shape), write)
        write(flat.data)
    elif isinstance(part, Mapping):
        items = sorted(((_code(key), value) for key, value in part.items()), key=itemgetter(0))
        write(b"m%d:" % len(items))
        for key, value in items:
            write(key)
            encode(value, write)
    elif isinstance(part, Sequence):
        write(b"l%d:" % len(part))
        for inner in part:
            encode(inner, write)
    else:
        raise TypeError(
            f"content_hash takes tensors, bytes, JSON values, lists and mappings of them; got "
            f"{part!r} of {type(part).__module__}.{type(part).__qualname__}"
        )


def _code(part: Any) -> bytes:
    pieces: list[bytes | memoryview] = []
    encode(part, pieces.append)
    return b"".join(pieces)


COST = "latentbench.cost"  # name under which an entry keeps what it cost to make


class Cache:
    """Tensors by key, in a folder; every entry is sealed under its key and checked on read.

    A folder that cannot be written to costs time and nothing else: its entries are computed.

    An entry also keeps how many denoiser evaluations it cost, so that a method's whole cost is
    known when another cell has already done part of the work: `saved` sums what hits spared.

    Args:
        folder: where entries live, or None to compute always.
        meter: returns the (forward, backward) evaluations done so far.
    """

    def __init__(self, folder: Path | None, meter: Callable[[], tuple[int, int]] | None = None):
        self.folder, self.saved = folder, torch.zeros(2, dtype=torch.int64)
        self._meter = meter or (lambda: (0, 0))

    def cost(self) -> Tensor:
        """Return (forward, backward) evaluations so far, done and spared together."""
        return torch.tensor(self._meter()) + self.saved

    def get_or_make(
        self, kind: str, key: str, make: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the entry, made by `make` if it is missing or damaged.

        Args:
            kind: folder name, such as "inversion" or "fit".
            key: hash of all that the entry depends on.
            make: returns the tensors by name.
        """
        if self.folder is None:
            return dict(make())
        found = self.find(kind, key)
        if found is not None:
            return found
        path, sealed_as = _place(self.folder, kind, key)
        before = self.cost()
        made = {name: value.detach().cpu().contiguous() for name, value in make().items()}
        try:
            store.write_sealed(path, sealed_as, save({**made, COST: self.cost() - before}))
        except OSError as error:
            store.report_once(self.folder, error, "what it lacks is computed and not kept")
        return made

    def find(self, kind: str, key: str) -> dict[str, Tensor] | None:
        """Return the entry, or None where it is missing or damaged; see `get_or_make`."""
        found = None if self.folder is None else _read(*_place(self.folder, kind, key))
        if found is not None:
            self.saved += found.pop(COST, torch.zeros(2, dtype=torch.int64))
        return found


def _place(folder: Path, kind: str, key: str) -> tuple[Path, str]:
    """Return an entry's file, and the name that it is sealed under."""
    return folder / kind / key[:2] / f"{key}.sealed", f"{kind}/{key}"


def _read(path: Path, sealed_as: str) -> dict[str, Tensor] | None:
    body = store.read_sealed(path, sealed_as)
    try:
        return None if body is None else load(body)
    except SafetensorError as error:
        store.discard(path, f"cannot be read ({error})")
        return None
