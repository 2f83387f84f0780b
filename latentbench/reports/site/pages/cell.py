"""A page per cell: question, command, figures, images, costs, environment."""

from collections.abc import Iterator

from latentbench.records import Record
from latentbench.reports.boards import Found
from latentbench.reports.site.contents import Contents, slug
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.templating import render


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield a page per cell, with its picture."""
    for found in contents.found:
        record = found[1]
        page = f"cells/{slug(record.id)}.html"
        yield Piece(
            page,
            [contents.keys[record.id]],
            lambda found=found, page=page: {page: _page(contents, found)},
        )


def _page(contents: Contents, found: Found) -> bytes:
    _, record = found
    return render("cell.html", root="../", here="", record=record, title=_title(record))


def _title(record: Record) -> str:
    return record.title
