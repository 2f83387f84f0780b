"""A page per board: one benchmark on one model and data set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from latentbench.reports.boards import Board, Row
from latentbench.reports.site import compare, gallery
from latentbench.reports.site.charts import Look, charts, looks
from latentbench.reports.site.contents import Contents, board_slug, slug
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.tables import Table, tables
from latentbench.reports.site.templating import render


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield a page per board."""
    drawn = looks(contents.boards)
    for board in contents.boards:
        (table,) = tables(Contents(contents.found, [board], contents.meanings))
        same = [other for other in contents.boards if _family(other) == _family(board)]
        keys = [contents.keys[r.id] for b in same for row in b.rows for r in row.records]
        mine = {name: drawn[name] for name in (row.first.label("method") for row in board.rows)}
        page = f"boards/{board_slug(board)}.html"
        yield Piece(
            page,
            [asdict(table), keys, {name: asdict(look) for name, look in mine.items()}],
            lambda page=page, board=board, table=table, same=same, mine=mine: {
                page: _page(board, table, same, mine)
            },
        )


def _page(board: Board, table: Table, same: Sequence[Board], mine: Mapping[str, Look]) -> bytes:
    return render(
        "board.html",
        root="../",
        here="overview",
        board=board,
        table=table,
        looks=mine,
        plots=charts(board, same, mine, _cell),
        gallery=gallery.address(board) if gallery.Gallery(board).rows else "",
        compare=compare.address(board) if compare.Comparisons(board).figures else "",
    )


def _cell(row: Row) -> str:
    return f"../cells/{slug(row.first.id)}.html"


def _family(board: Board) -> tuple[str, ...]:
    """Return what boards share whose cost is compared: all but the model's settings."""
    return (board.benchmark, board.dataset, *{row.first.names["model"] for row in board.rows})
