"""Where weights are and what their hash is; embedded ones are checked against their cards."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from latentbench.content import content_hash
from latentbench.errors import MissingWeights, unknown
from latentbench.paths import is_utf8

WEIGHTS_ROOT = Path(__file__).resolve().parent / "zoo" / "weights"
CARD = "card.json"
RELIABILITY = "r2_64px"  # entry of a judge's card: share of each factor's variance that it explains


def names() -> tuple[str, ...]:
    """Names of the embedded models and judges: every folder with a card."""
    return tuple(sorted(path.parent.name for path in WEIGHTS_ROOT.glob(f"*/{CARD}")))


def folder(name: str) -> Path:
    """Folder of an embedded model.

    Raises:
        BadInput: No such model; the message lists those there are.
    """
    if name not in names():
        raise unknown("embedded model", name, names())
    return WEIGHTS_ROOT / name


def card(name: str) -> dict[str, Any]:
    """The model card: recipe, data, seed, hardware, hashes, measured quality.

    Raises:
        BadInput: No such model.
        MissingWeights: The card cannot be read, or does not list the files' hashes.
    """
    path = folder(name) / CARD
    try:
        found = json.loads(path.read_bytes())
        listed = found["sha256"].items()
        if not all(isinstance(text, str) and is_utf8(text) for pair in listed for text in pair):
            raise ValueError("sha256 must hold a text for each file")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MissingWeights(
            f"{path} is not a card: {type(error).__name__}: {error}; restore it with "
            f"`git checkout -- {path}`"
        ) from error
    return found


def digest(name: str) -> str:
    """Hash of an embedded model, as cells' ids know it.

    It covers all files, and of a judge how well it reads each factor: figures are weighted by that.
    """
    found = card(name)
    return content_hash(found["sha256"], found.get("measured", {}).get(RELIABILITY))


def hash_of(path: str) -> str:
    """Return the hash of a checkpoint that a setting names: embedded, in a folder, or of the hub.

    Of a hub id it is the downloaded revision, or "absent".
    """
    if path in names():
        return digest(path)
    return folder_hash(Path(path)) if Path(path).is_dir() else _hub_commit(path)


def folder_hash(folder: Path) -> str:
    """Return a hash of all files below a folder, names included."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    hashed = [(str(p.relative_to(folder)), _file_hash(p, *_stamp(p))) for p in files]
    return content_hash(hashed)


@lru_cache(maxsize=4096)
def _file_hash(path: Path, size: int, changed: int) -> str:
    return sha256(path)


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


def _hub_commit(name: str) -> str:
    """Return the downloaded revision of a hub id, or "absent"."""
    ref = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs" / "main"
    return ref.read_text().strip() if ref.is_file() else "absent"


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(root: Path) -> dict[str, str]:
    """Digest of each file below a folder, by relative path, the card itself left out."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != CARD)
    return {path.relative_to(root).as_posix(): sha256(path) for path in files}


def verify(name: str) -> None:
    """Compare every file of an embedded model with its card; each file must be in both.

    Args:
        name: One of ``names()``.

    Raises:
        BadInput: No such model.
        MissingWeights: A file is absent or has another hash; says which, what was expected, what
            was found, and how to get it back.

    Example:
        >>> verify("zoo1")
    """
    root, expected = folder(name), card(name)["sha256"]
    found = hashes(root)
    for relative in sorted(expected.keys() | found.keys()):
        path = root / relative
        pair = [these.get(relative, "no file") for these in (expected, found)]
        if pair[0] != pair[1]:
            raise MissingWeights(
                f"{path} is not the file that the card of {name!r} names: expected sha256 "
                f"{pair[0]}, found {pair[1]}; restore it with `git checkout -- {path}`, or train a "
                f"new model and card with `python -m latentbench.zoo train {name}`"
            )
