"""Two methods of a board against each other: what the tests say, and every image."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from latentbench.records import IMAGES
from latentbench.reports.boards import ROW_KEYS, Board
from latentbench.reports.leaderboard import header
from latentbench.reports.site.contents import Contents, board_slug, slug
from latentbench.reports.site.gallery import Gallery
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.templating import render

DIGITS = 5  # of the values of images


@dataclass(frozen=True)
class Pairs:
    """A figure of all methods of a board, image by image, and the tests of all pairs.

    Args:
        figure: its name.
        keys: seed, id and group of each image.
        values: per method, the figure of each image; None for figures of sets.
        tests: "i j", with i before j on the board -> what the board's ranking says of this pair:
            difference, low, high, corrected p, images, and whether the two are told apart.
    """

    figure: str
    keys: Sequence[tuple[str, str, str]]
    values: Sequence[Sequence[float | None] | None]
    tests: dict[str, dict[str, Any]]

    def script(self) -> bytes:
        """Return a script that hands all of it to the page; a page from a file reads no JSON."""
        data = {"keys": self.keys, "values": self.values, "tests": self.tests}
        text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        return f"latentbench.compared({json.dumps(self.figure)},{text});\n".encode()


class Comparisons:
    """All that the page of a board needs.

    Args:
        board: of whose methods two are picked.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.folder = f"boards/{board_slug(board)}-compare"

    @property
    def methods(self) -> list[str]:
        """The methods, from best to worst."""
        return [row.first.label("method") for row in self.board.rows]

    @property
    def figures(self) -> list[str]:
        """The figures that have a direction, so that one method can be better; none for one."""
        if len(self.board.rows) < 2:
            return []
        return [name for name in self.board.figures if name in self.board.rankings]

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the page's script reads at first: names, directions, addresses, pictures."""
        figures = [
            {
                "name": name,
                "title": header(self.board, name),
                "better": self.board.figures[name].higher_is_better,
                "src": f"{self.folder}/{slug(name)}.js",
            }
            for name in self.figures
        ]
        cells = [f"cells/{slug(row.first.id)}.html" for row in self.board.rows]
        return {
            "figures": figures,
            "methods": [
                {"name": name, "cell": cell} for name, cell in zip(self.methods, cells, strict=True)
            ],
            "pictures": self._pictures(),
        }

    def pairs(self, figure: str) -> Pairs:
        """Return one figure of all methods."""
        series = [row.values(figure) for row in self.board.rows]
        known = {k: s.groupby(ROW_KEYS).mean() for k, s in enumerate(series) if s is not None}
        wide = pd.DataFrame(known)
        values = [
            [_rounded(value) for value in wide[k].to_list()] if k in known else None
            for k in range(len(series))
        ]
        keys = [(str(seed), str(name), str(group)) for seed, name, group in wide.index]
        ranking = self.board.rankings[figure]
        tests = {
            f"{i} {j}": {
                "difference": c.difference, "low": c.low, "high": c.high, "n": c.n,
                "p": ranking.corrected[i, j], "apart": ranking.apart(i, j),
            }
            for (i, j), c in ranking.pairs.items()
        }  # fmt: skip
        return Pairs(figure, keys, values, tests)

    def _pictures(self) -> dict[str, Any]:
        """Return the kept pictures by "id group": source, truth, and one per method."""
        gallery = Gallery(self.board)
        places = [k for k, row in enumerate(self.board.rows) if IMAGES in row.first.files]
        found = {}
        for line in gallery.lines:
            shots = {
                k: s.pictures[s.best].src
                for k, s in zip(places, line.shots, strict=True)
                if s is not None
            }
            found[" ".join(line.key)] = {
                "source": line.source and line.source.src,
                "truth": line.truth and line.truth.src,
                "shots": shots,
            }
        return {} if gallery.is_path else found


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield a page for each board of two methods or more, with a script per figure."""
    for board in contents.boards:
        found = Comparisons(board)
        if found.figures:
            keys = [contents.keys[record.id] for row in board.rows for record in row.records]
            yield Piece(address(board), keys, lambda found=found: _files(found))


def address(board: Board) -> str:
    """Return the path of a board's page below the site's folder."""
    return f"boards/{board_slug(board)}-compare.html"


def _files(found: Comparisons) -> dict[str, bytes]:
    back = f"{board_slug(found.board)}.html"
    page = render("compare.html", root="../", here="overview", comparisons=found, page=back)
    scripts = {
        figure["src"]: found.pairs(figure["name"]).script() for figure in found.data["figures"]
    }
    return {address(found.board): page, **scripts}


def _rounded(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{value:.{DIGITS}g}")
