"""A benchmark's table as its template shows it: one line per method and model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from latentbench.records import Record, ScoreEntry
from latentbench.reports import leaderboard
from latentbench.reports.boards import Board, Row
from latentbench.reports.site.contents import Contents, board_slug, slug
from latentbench.reports.site.meanings import Meanings

SHOWN = 5  # figures that are shown before a reader asks for all
SIGNS = {True: "↑", False: "↓", None: ""}
WORDS = {True: "higher is better", False: "lower is better", None: "neither way is better"}


@dataclass(frozen=True)
class Bar:
    """A figure and its interval on the scale of its column, in percent of the width."""

    at: float
    low: float
    width: float


@dataclass(frozen=True)
class Column:
    """One figure of a table.

    Args:
        figure: its name.
        unit: its unit.
        sign: an arrow to the better side.
        says: what it measures, in one line.
        tip: what else is to be known of it, and which way is better.
        shown: whether it is seen at first.
    """

    figure: str
    unit: str
    sign: str
    says: str
    tip: str
    shown: bool


@dataclass(frozen=True)
class Figure:
    """One figure of one line."""

    text: str
    interval: str
    order: float | str
    bar: Bar | None
    mark: str
    tip: str


@dataclass(frozen=True)
class Line:
    """One method on one model."""

    name: str
    method: str
    model: str
    model_name: str
    board: str
    cells: Sequence[str]
    rank: str
    place: int
    figures: Sequence[Figure]
    evaluations: str
    forward: int
    seconds: float
    spaces: Sequence[str]
    needs: Sequence[str]


@dataclass(frozen=True)
class Rest:
    """A cell without figures."""

    cell: str
    option: str
    method: str
    model: str
    status: str
    reason: str


@dataclass(frozen=True)
class Table:
    """A benchmark on a data set: all its methods and models.

    Args:
        name: for links.
        title: benchmark with its settings.
        dataset: with its settings.
        question: what the benchmark answers.
        columns: figures, the main score first.
        lines: by model, from best to worst.
        rest: cells without figures.
        boards: title, page, notes and warnings of each model's board.
    """

    name: str
    title: str
    dataset: str
    question: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    rest: Sequence[Rest]
    boards: Sequence["About"]


@dataclass(frozen=True)
class About:
    """What is to be known of one board."""

    model: str
    page: str
    warnings: Sequence[str]
    notes: Sequence[str]


def tables(contents: Contents) -> list[Table]:
    """Return one table per benchmark and data set, each with the settings of its own."""
    boards = sorted(contents.boards, key=_of)
    return [_table(list(same), contents.meanings) for _, same in groupby(boards, key=_of)]


def column(entry: ScoreEntry, figure: str, meanings: Meanings, shown: bool = True) -> Column:
    """Return what heads a column."""
    words, unit = meanings.figure(figure), entry.unit
    parts = (words.says, words.about, WORDS[entry.higher_is_better])
    tip = " ".join(f"{part[0].upper()}{part[1:].rstrip('.')}." for part in parts if part)
    return Column(figure, unit, SIGNS[entry.higher_is_better], words.says, tip, shown)


def scale(entries: Iterable[ScoreEntry | None]) -> tuple[float, float]:
    """Return the smallest and the largest number among figures and the ends of their intervals."""
    known = [entry for entry in entries if entry is not None]
    numbers = [v for e in known for v in (e.value, e.low, e.high) if v is not None]
    return (min(numbers), max(numbers)) if numbers else (0.0, 0.0)


def bar(entry: ScoreEntry, ends: tuple[float, float]) -> Bar | None:
    """Return where a figure and its interval lie between two ends; None where there is no room."""
    low, high = ends
    if entry.value is None or high <= low:
        return None
    lower = entry.value if entry.low is None else entry.low
    upper = entry.value if entry.high is None else entry.high
    at, start, stop = (
        round(100 * (v - low) / (high - low), 1) for v in (entry.value, lower, upper)
    )
    return Bar(at, start, round(stop - start, 1))


def _of(board: Board) -> tuple[str, str]:
    return board.benchmark, board.dataset


def _table(boards: Sequence[Board], meanings: Meanings) -> Table:
    first = boards[0]
    figures = {name: board.figures[name] for board in boards for name in board.columns}
    scales = {f: scale(row.scores.get(f) for b in boards for row in b.rows) for f in figures}
    records = [r for board in boards for row in board.rows for r in row.records]
    option = (records or [r for board in boards for r in board.rest])[0].names["benchmark"]
    return Table(
        slug(f"{first.benchmark} {first.dataset}"),
        first.benchmark,
        first.dataset,
        meanings.benchmark(option).question,
        [column(entry, f, meanings, k < SHOWN) for k, (f, entry) in enumerate(figures.items())],
        [_line(board, k, scales, meanings) for board in boards for k in range(len(board.rows))],
        [_rest(record) for board in boards for record in board.rest],
        [about(board) for board in boards],
    )


def about(board: Board) -> About:
    """Return what is to be known of a board, in words."""
    page = f"boards/{board_slug(board)}.html"
    return About(board.model, page, leaderboard.warnings(board), leaderboard.notes(board))


def _line(board: Board, k: int, scales: dict[str, tuple[float, float]], meanings: Meanings) -> Line:
    row = board.rows[k]
    name, rank = leaderboard.who(row, leaderboard.places(board, k), board.names[k])
    method = row.first.names["method"]
    words = meanings.method(method)
    verbs = meanings.benchmark(row.first.names["benchmark"]).verbs or list(words.requires)
    return Line(
        name,
        method,
        board.model,
        row.first.names["model"],
        f"boards/{board_slug(board)}.html",
        [record.id for record in row.records],
        "" if rank == "-" else rank,
        k + 1,
        [_figure(board, k, figure, scales[figure]) for figure in scales],
        leaderboard.evaluations(row),
        sum(record.total("forward") for record in row.records),
        seconds(row),
        sorted({space for verb in verbs for space in words.requires.get(verb, ())}),
        sorted({need for verb in verbs for need in words.needs.get(verb, ())}),
    )


def seconds(row: Row) -> float:
    """Return the wall time of all phases of all seeds."""
    return sum(sum(record.seconds.values()) for record in row.records)


def _figure(board: Board, k: int, figure: str, ends: tuple[float, float]) -> Figure:
    entry = board.rows[k].scores.get(figure)
    if entry is None or entry.value is None:
        return Figure("–", "", "", None, "", entry.note if entry else "")
    return Figure(
        f"{entry.value:.4g}",
        interval(entry),
        entry.value,
        bar(entry, ends),
        leaderboard.mark(board, k, figure),
        leaderboard.says(board, k, figure),
    )


def interval(entry: ScoreEntry) -> str:
    """Return the 95% interval in words, or an empty string."""
    return "" if entry.low is None or entry.high is None else f"{entry.low:.3g} to {entry.high:.3g}"


def _rest(record: Record) -> Rest:
    name = leaderboard.with_seed(record)
    return Rest(
        record.id,
        record.names["method"],
        name,
        record.label("model"),
        str(record.status),
        record.reason,
    )
