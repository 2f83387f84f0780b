"""Writes the site of some records."""

import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from latentbench.reports.site import assets, compare, gallery
from latentbench.reports.site.contents import Contents
from latentbench.reports.site.pages import board, cell, claims, method, overview
from latentbench.reports.site.pieces import LIST, Piece, write

FIRST = "index.html"
FOLDER = "site"  # below the folder of the results
PIECES: Sequence[Callable[[Contents], Iterable[Piece]]] = (
    assets.pieces,
    overview.pieces,
    board.pieces,
    cell.pieces,
    method.pieces,
    claims.pieces,
    gallery.pieces,
    compare.pieces,
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # of files in a bundle, whose bytes depend on the records alone


def build(contents: Contents, folder: Path) -> Path:
    """Write the site, as far as it has changed, and return its first page.

    Args:
        contents: what it shows.
        folder: where it is written.

    Raises:
        OSError: a file cannot be written.
    """
    write((piece for pieces in PIECES for piece in pieces(contents)), folder)
    return folder / FIRST


def bundle(folder: Path, file: Path) -> Path:
    """Pack a site into one zip file, the same bytes for the same site.

    Args:
        folder: the site.
        file: where to write.

    Raises:
        OSError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f"{file.name}.tmp")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != LIST):
            entry = zipfile.ZipInfo(f"{FOLDER}/{path.relative_to(folder).as_posix()}", EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, path.read_bytes())
    unfinished.replace(file)
    return file
