"""A content-addressed store of tensors: what a hash says is known is never computed again."""

import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

log = logging.getLogger(__name__)


def content_hash(*parts: Any) -> str:
    """Return a sha256 over tensors (bytes, shape, dtype), bytes and JSON values.

    Example:
        >>> content_hash(1, "a") == content_hash(1, "a")
        True
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{tuple(part.shape)}{part.dtype}".encode())
            digest.update(
                part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    beside.write_bytes(data)
    beside.replace(path)


COST = "latentbench.cost"  # name under which an entry keeps what it cost to make


class Cache:
    """Tensors by key, in a folder; every entry carries its own hash and is checked on read.

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
        path = self.folder / kind / key[:2] / f"{key}.safetensors"
        found = self._read(path)
        if found is not None:
            self.saved += found.pop(COST, torch.zeros(2, dtype=torch.int64))
            return found
        before = self.cost()
        made = {name: value.detach().cpu().contiguous() for name, value in make().items()}
        body = save({**made, COST: self.cost() - before})
        write_atomically(path, hashlib.sha256(body).digest() + body)
        return made

    def _read(self, path: Path) -> dict[str, Tensor] | None:
        if not path.is_file():
            return None
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            return load(data[32:])
        log.warning("cache entry %s is damaged; making it again", path)
        path.unlink(missing_ok=True)
        return None
