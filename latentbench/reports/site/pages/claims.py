"""The page of claims: answers, effects against zero, and the cells that they rest on."""

from collections.abc import Iterator

from latentbench.reports.site.contents import Contents
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.templating import render

PAGE = "claims.html"


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield the page of claims."""
    yield Piece(PAGE, None, lambda: {PAGE: _page(contents)})


def _page(contents: Contents) -> bytes:
    return render("claims.html", root="", here="claims", cases=contents.claims)
