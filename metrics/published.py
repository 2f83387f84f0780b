"""Published weights: a published name is switched on by the right file, by nothing else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from latentbench.errors import MissingWeights
from latentbench.zoo.weights import sha256


@dataclass(frozen=True)
class PublishedWeights:
    """A file that others published.

    Args:
        file: its name inside `results.weights_dir`.
        digest: its sha256, whole.
        origin: where it comes from.

    Example:
        >>> PublishedWeights("net.pth", "00" * 32, "example.org").missing(None)[:20]
        'no weights_dir: put '
    """

    file: str
    digest: str
    origin: str

    def missing(self, weights_dir: Path | None) -> str | None:
        """Return why the file cannot be used, with what to do, or None when it is there."""
        what = f"put {self.file} ({self.origin}, sha256 {self.digest}) into results.weights_dir"
        if weights_dir is None:
            return f"no weights_dir: {what} and set it"
        path = weights_dir / self.file
        if not path.is_file():
            return f"{path} does not exist: {what}"
        found = sha256(path)
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
