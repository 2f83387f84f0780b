"""Two lines of a board against each other: every figure that both have, on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentbench.errors import BadInput
from latentbench.records import GROUPS, Record, Status
from latentbench.reports.boards import Board, Found, Row
from latentbench.reports.comparison import Comparison
from latentbench.reports.leaderboard import header

SAME = ("benchmark", "dataset")  # what two lines must share for their figures to mean the same


@dataclass(frozen=True)
class Difference:
    """One figure of two lines.

    Args:
        figure: its name.
        values: of the first and of the second, on the rows that both have.
        found: how the first differs from the second, or None where it cannot be tested.
        verdict: "first", "second", or "not told apart"; "" where the figure has no direction.
    """

    figure: str
    values: tuple[float | None, float | None]
    found: Comparison | None
    verdict: str


class Duel:
    """The comparison of two lines.

    Args:
        first: folders and records of the first, one per seed.
        second: the same of the second.

    Raises:
        BadInput: one of them is no single line, has no figures, or they answer other questions.
    """

    def __init__(self, first: Sequence[Found], second: Sequence[Found]) -> None:
        self.names = tuple(_label(pairs, which) for pairs, which in ((first, 0), (second, 1)))
        one, other = first[0][1], second[0][1]
        for group in SAME:
            if one.label(group) != other.label(group):
                raise BadInput(
                    f"the two have another {group}: {one.label(group)} and {other.label(group)}; "
                    f"their figures do not answer the same question"
                )
        models = " and ".join(dict.fromkeys([one.label("model"), other.label("model")]))
        self.board = Board(one.label("benchmark"), models, one.label("dataset"), [*first, *second])
        if len(self.board.rows) != 2:
            raise BadInput("the two differ in nothing but their seed: they are one line")
        self._order = sorted((0, 1), key=lambda k: self.board.rows[k].first.id not in _ids(first))
        self.differences = [d for name in self.board.figures if (d := self._difference(name))]

    @property
    def rows(self) -> tuple[Row, Row]:
        """The first line and the second."""
        one, other = (self.board.rows[k] for k in self._order)
        return one, other

    def _difference(self, figure: str) -> Difference | None:
        entries = [row.scores.get(figure) for row in self.rows]
        if None in entries:
            return None
        ranking = self.board.rankings.get(figure)
        found = None if ranking is None else ranking.pairs.get((0, 1))
        values = tuple(None if e is None else e.value for e in entries)
        if found is not None and self._order[0]:
            found = turned(found)
        if found is not None and found.values is not None:
            values = found.values
        if ranking is None:
            return Difference(figure, (values[0], values[1]), None, "")
        better = [ranking.better(i, j) for i, j in (self._order, self._order[::-1])]
        verdict = "first" if better[0] else "second" if better[1] else "not told apart"
        return Difference(figure, (values[0], values[1]), found, verdict)

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        figures = []
        for one in self.differences:
            entry = self.board.figures[one.figure]
            figures.append(
                {"figure": one.figure, "main": one.figure == self.board.main_score}
                | {"higher_is_better": entry.higher_is_better, "unit": entry.unit}
                | {"first": one.values[0], "second": one.values[1], "better": one.verdict}
                | _in_json(one.found)
                | {"smallest_that_matters": self.board.smallest(one.figure)}
            )
        cells = {
            name: [record.id for record in row.records]
            for name, row in zip(("first", "second"), self.rows, strict=True)
        }
        return {"board": self.board.title, **cells, "figures": figures}

    def show(self, console: Console) -> None:
        """Print a table with a line per figure."""
        for name, words in zip(("first ", "second"), self.names, strict=True):
            console.print(f"{name}  {escape(words)}", highlight=False)
        table = Table("figure", "first", "second", "difference [95% interval]", "p", "n", "better")
        for one in self.differences:
            style = "bold" if one.figure == self.board.main_score else None
            values = ["-" if value is None else f"{value:.4g}" for value in one.values]
            title = escape(header(self.board, one.figure))
            table.add_row(title, *values, *_in_words(one.found), one.verdict, style=style)
        console.print(table)
        console.print(
            "Differences are first minus second, paired by image; each p-value is of its figure "
            "alone. Better: p < .05, an interval without 0, and a difference that matters.",
            style="dim", highlight=False,
        )  # fmt: skip


def turned(found: Comparison) -> Comparison:
    """Return how the second differs from the first, of how the first differs from the second."""
    low, high = (None if end is None else -end for end in (found.high, found.low))
    wins = None if found.wins is None else 1 - found.wins
    values = None if found.values is None else found.values[::-1]
    return replace(
        found, difference=-found.difference, low=low, high=high, wins=wins, values=values
    )


def _label(found: Sequence[Found], which: int) -> str:
    """Return what a line is called, and refuse what is no line with figures."""
    position = ("first", "second")[which]
    records = [record for _, record in found]
    odd = [record for record in records if record.status is not Status.OK]
    if odd:
        raise BadInput(
            f"the {position} has no figures: {odd[0].id} {odd[0].status}: {odd[0].reason}"
        )
    lines = {tuple(record.label(group) for group in GROUPS): record for record in records}
    if len(lines) > 1:
        some = ", ".join(sorted(record.id for record in lines.values()))
        raise BadInput(f"the {position} names {len(lines)} lines ({some}); name one method or cell")
    return _in_one(records)


def _in_one(records: Sequence[Record]) -> str:
    first = records[0]
    ids = ", ".join(record.id for record in records)
    return f"{first.label('method')} on {first.label('model')} ({ids})"


def _ids(found: Sequence[Found]) -> set[str]:
    return {record.id for _, record in found}


def _in_json(found: Comparison | None) -> dict[str, Any]:
    names = ("difference", "low", "high", "p", "n", "wins")
    return {name: None if found is None else getattr(found, name) for name in names}


def _in_words(found: Comparison | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "-", "-"
    known = found.low is not None and found.high is not None
    interval = f" [{found.low:+.3g}, {found.high:+.3g}]" if known else ""
    return escape(f"{found.difference:+.4g}{interval}"), f"{found.p:.2g}", str(found.n)
