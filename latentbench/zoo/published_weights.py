"""Published weights: a published name is switched on by the right file, by nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from latentbench.errors import MissingWeights
from latentbench.weights import sha256


@dataclass(frozen=True)
class PublishedWeights:
    """A file that others published.

    Args:
        file: its name inside `results.weights_dir`.
        digest: its sha256, whole; empty where none is known, and then it stays switched off.
        url: where it comes from.

    Example:
        >>> PublishedWeights("net.pth", "00" * 32, "https://example.org/net.pth").missing(None)[:20]
        'no weights_dir: put '
    """

    file: str
    digest: str
    url: str

    def missing(self, weights_dir: Path | None) -> str | None:
        """Return why the file cannot be used, with what to do, or None when it is there."""
        what = f"put {self.file} ({self.url}, sha256 {self.digest}) into results.weights_dir"
        if not self.digest:
            return f"no published sha256 of {self.file} ({self.url}): give the one that you trust"
        if weights_dir is None:
            return f"no weights_dir: {what} and set it"
        path = weights_dir / self.file
        if not path.is_file():
            return f"{path} does not exist: {what}"
        found = _digest(path, path.stat().st_size, path.stat().st_mtime_ns)
        return None if found == self.digest else f"{path} has sha256 {found}: {what}"

    def path(self, weights_dir: Path | None) -> Path:
        """Return the checked file.

        Raises:
            MissingWeights: it is absent or has another hash.
        """
        why = self.missing(weights_dir)
        if why or weights_dir is None:
            raise MissingWeights(why)
        return weights_dir / self.file

    def state(self, weights_dir: Path | None) -> dict[str, Any]:
        """Return the tensors of a checked state dict; objects other than tensors are refused."""
        return torch.load(self.path(weights_dir), map_location="cpu", weights_only=True)

    def command(self, weights_dir: Path) -> str:
        """Return the shell command that fetches it."""
        return f"curl -L --create-dirs -o {weights_dir / self.file} {self.url}"


def first_missing(weights: Iterable[PublishedWeights], weights_dir: Path | None) -> str | None:
    """Return why the first file that cannot be used is so, or None when all are there."""
    return next(filter(None, (one.missing(weights_dir) for one in weights)), None)


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    """Return a file's hash, read once while size and time of change stay."""
    del size, changed
    return sha256(path)
