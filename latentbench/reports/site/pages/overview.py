"""The first page: a table per benchmark."""

from collections.abc import Iterator
from dataclasses import asdict

from latentbench.reports.site.contents import Contents
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.tables import Table, tables
from latentbench.reports.site.templating import render

PAGE = "index.html"
FEW = 12  # boards whose links stand side by side; more are folded away


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield the first page."""
    found = tables(contents)
    key = [asdict(table) for table in found]
    yield Piece(PAGE, key, lambda: {PAGE: _page(contents, found)})


def _page(contents: Contents, found: list[Table]) -> bytes:
    lines = [line for table in found for line in table.lines]
    return render(
        "overview.html",
        root="",
        here="overview",
        tables=found,
        few=FEW,
        cells=len(contents.found),
        methods=sorted({record.names["method"] for _, record in contents.found}),
        models=len({record.names["model"] for _, record in contents.found}),
        model_names=sorted({line.model_name for line in lines}),
        spaces=sorted({space for line in lines for space in line.spaces}),
        needs=sorted({need for line in lines for need in line.needs}),
    )
