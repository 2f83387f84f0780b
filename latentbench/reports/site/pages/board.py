"""A page per board: one benchmark on one model and data set."""

from collections.abc import Iterator
from dataclasses import asdict

from latentbench.reports.boards import Board
from latentbench.reports.site.contents import Contents, board_slug
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.tables import Table, tables
from latentbench.reports.site.templating import render


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield a page per board."""
    for board in contents.boards:
        (table,) = tables(Contents(contents.found, [board], contents.meanings))
        keys = [contents.keys[record.id] for row in board.rows for record in row.records]
        page = f"boards/{board_slug(board)}.html"
        yield Piece(
            page,
            [asdict(table), keys],
            lambda page=page, board=board, table=table: {page: _page(board, table)},
        )


def _page(board: Board, table: Table) -> bytes:
    return render("board.html", root="../", here="overview", board=board, table=table)
