"""A page per method: its idea, what it needs, and its lines over all benchmarks."""

from collections.abc import Iterator

from latentbench.reports.site.contents import Contents, slug
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.templating import render

INDEX = "methods.html"


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield a page per method that records name, and one of them all."""
    names = sorted({record.names["method"] for _, record in contents.found})
    yield Piece(INDEX, names, lambda: {INDEX: _index(names)})
    for name in names:
        page = f"methods/{slug(name)}.html"
        yield Piece(page, [name], lambda name=name, page=page: {page: _page(contents, name)})


def _index(names: list[str]) -> bytes:
    return render("methods.html", root="", here="methods", methods=names)


def _page(contents: Contents, name: str) -> bytes:
    words = contents.meanings.method(name)
    return render("method.html", root="../", here="methods", name=name, words=words)
