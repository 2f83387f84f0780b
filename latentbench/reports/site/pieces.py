"""Pieces of the site: files that are made again only when what they show has changed."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any

from latentbench import store
from latentbench.content import content_hash
from latentbench.errors import BadInput

LIST = "pieces.json"  # what was written, by piece: its key and its files
Made = Mapping[str, bytes]


@dataclass(frozen=True)
class Piece:
    """Some files of the site that are made together.

    Args:
        name: tells it from others.
        key: all that its bytes depend on besides the code, as a JSON value.
        make: gives its files: path below the site's folder -> content.
    """

    name: str
    key: Any
    make: Callable[[], Made]


def write(pieces: Iterable[Piece], folder: Path) -> list[str]:
    """Make what has changed, remove what is no longer part of the site.

    Args:
        pieces: all of the site.
        folder: where it is written.

    Returns:
        Names of the pieces that were made.

    Raises:
        BadInput: two pieces have the same name, or one has a file outside the folder.
        OSError: a file cannot be written.
    """
    before, after, made = _listed(folder), {}, []
    for piece in pieces:
        if piece.name in after:
            raise BadInput(f"two pieces of the site are called {piece.name}")
        key = content_hash(_code(), piece.key)
        entry = before.get(piece.name, {})
        if entry.get("key") != key or not all((folder / p).is_file() for p in entry["files"]):
            contents = piece.make()
            for path, content in contents.items():
                _put(folder, path, content)
            entry = {"key": key, "files": sorted(contents)}
            made.append(piece.name)
        after[piece.name] = entry
    kept = {path for entry in after.values() for path in entry["files"]}
    for path in {path for entry in before.values() for path in entry["files"]} - kept:
        _place(folder, path).unlink(missing_ok=True)
    text = json.dumps(after, indent=1, sort_keys=True)
    store.write(folder / LIST, f"{text}\n".encode())
    return made


def _listed(folder: Path) -> dict[str, Any]:
    """Return what the last build wrote; nothing where its list is missing or damaged."""
    try:
        listed = json.loads((folder / LIST).read_text())
        wanted = {name: {"key": e["key"], "files": list(e["files"])} for name, e in listed.items()}
        _ = [_place(folder, path) for entry in wanted.values() for path in entry["files"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, BadInput):
        return {}
    return wanted


def _put(folder: Path, path: str, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none; what is derived need not be durable."""
    place = _place(folder, path)
    if place.is_file() and place.read_bytes() == content:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    unfinished.write_bytes(content)
    unfinished.replace(place)


def _place(folder: Path, path: str) -> Path:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or PurePosixPath(path).is_absolute():
        raise BadInput(f"a file of the site must be below its folder, got {path!r}")
    return folder.joinpath(*parts)


@cache
def _code() -> str:
    """Return a hash of all that makes pages of records."""
    return content_hash(
        [[str(name), data] for name, data in _sources(files("latentbench.reports"))]
    )


def _sources(folder: Traversable) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir():
            found += _sources(entry)
        elif entry.name.endswith((".py", ".html", ".css", ".js")):
            found.append((entry.name, entry.read_bytes()))
    return found
