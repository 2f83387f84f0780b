"""Which files below a folder are its images."""

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from latentbench.data.decoding import readable_endings
from latentbench.data.faults import refuse, shortened
from latentbench.errors import BadInput
from latentbench.paths import is_utf8, leading_out

log = logging.getLogger(__name__)
SYSTEM = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")  # folders of copies and thumbnails
UNREAD = frozenset({
    ".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".ico", ".jxl",
    ".nef", ".orf", ".psd", ".raf", ".rw2", ".svg", ".tga", ".xcf",
})  # fmt: skip


@dataclass
class _Found:
    """What a walk meets."""

    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def image_files(folder: Path, links: bool = False) -> list[str]:
    """Return the paths within a folder of all images below it, in order.

    An image is a file whose ending, in upper or lower case, is one of `readable_endings`. Images of
    a warning names kinds that cannot be read.

    Args:
        folder: the folder, resolved.
        links: follow links that lead out of the folder.

    Raises:
        BadInput: no image below it, or see `files_below`.
    """
    readable = readable_endings()
    found = files_below(folder, readable | UNREAD, links)
    unread = [name for name in found if Path(name).suffix.lower() not in readable]
    if unread:
        log.warning("images of kinds that cannot be read are left out: %s; convert them to PNG",
                    shortened(unread))  # fmt: skip
    images = sorted(set(found) - set(unread))
    if not images:
        raise BadInput(f"no image below {folder}; looked for {', '.join(sorted(readable))}")
    return images


def files_below(folder: Path, endings: Collection[str], links: bool = False) -> list[str]:
    """Return the paths within a folder of all files below it with one of these endings, in order.

    Hidden files and folders, whose names begin with a dot, are left out, as are folders in which
    operating systems keep thumbnails. Links within the folder are followed.

    Args:
        folder: the folder, resolved.
        endings: in lower case, with their dots.
        links: follow links that lead out of the folder.

    Raises:
        BadInput: no such folder, or entries that cannot be used: links out of the folder, links to
            nothing, names that are not UTF-8. Names all of them.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give dataset.path=/where/your/images/are")
    found = _Found()
    _walk(_Walk(folder, endings, links), folder, found, (os.path.realpath(folder),))
    refuse(
        sorted(found.faults),
        f"entries below {folder} cannot be used",
        "remove or rename them, or give dataset.links=true to follow links out of the folder",
    )
    return sorted(found.files)


@dataclass(frozen=True)
class _Walk:
    """What is looked for: see `files_below`."""

    root: Path
    endings: Collection[str]
    links: bool


def _walk(walk: _Walk, folder: Path, found: _Found, above: tuple[str, ...]) -> None:
    """Sort the entries of a folder and of all below it.

    Args:
        walk: what is looked for.
        folder: the folder.
        found: what is added to.
        above: real paths of the folders that led here, this one included.
    """
    for entry in _entries(walk.root, folder, found):
        if not (entry.is_dir() or Path(entry.name).suffix.lower() in walk.endings):
            continue
        name, fault = Path(entry.path).relative_to(walk.root).as_posix(), _fault(walk, entry, above)
        if fault:
            found.faults.append(f"{name}: {fault}")
        elif entry.is_dir():
            _walk(walk, Path(entry.path), found, (*above, os.path.realpath(entry.path)))
        else:
            found.files.append(name)


def _entries(root: Path, folder: Path, found: _Found) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.name not in SYSTEM]
    except OSError as error:
        name = folder.relative_to(root).as_posix()
        found.faults.append(f"{name}: cannot be opened ({error.strerror})")
        return []


def _fault(walk: _Walk, entry: os.DirEntry[str], above: tuple[str, ...]) -> str:
    """Return why an entry cannot be used, or an empty string."""
    if not is_utf8(entry.name):
        return "the name is not UTF-8"
    if entry.is_symlink():
        outside = "" if walk.links else leading_out(walk.root, Path(entry.path))
        if outside:
            return outside
        if os.path.realpath(entry.path) in above:
            return "it is a link to a folder that it is in"
    if entry.is_dir() or entry.is_file():
        return ""
    return "it is a link to nothing" if entry.is_symlink() else "it is not a file"
