"""The leaderboard: a pure function of records, as Markdown and CSV; the site is `reports/site`."""

import csv
import io
import json
import re
import string
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentbench.records import Record, ScoreEntry, Status
from latentbench.reports import as_text
from latentbench.reports.as_text import Part, in_markdown
from latentbench.reports.boards import Board, Row, twin_of
from latentbench.reports.comparison import POWER, images_for

ARROWS = {True: " ↑", False: " ↓", None: ""}
MARKS = {"best": "", "tied": " ≈", "worse": " *", "": ""}
NONE = "no interval: "  # how notes of scores begin to say why
RUN = 4  # letters in a row that are shown as their ends
SHOWN = 5  # figures per row on the terminal
NAMES_WIDTH, FIGURE_WIDTH = 58, 24  # characters, on a terminal
CSV_COLUMNS = (
    "benchmark", "model", "dataset", "method", "seeds", "cells", "status", "reason", "figure",
    "value", "low", "high", "n", "unit", "higher_is_better", "main", "rank_low", "rank_high",
    "letters", "mark", "p_best", "seed_values", "seed_share", "coverage", "note",
)  # fmt: skip
LEGEND = (
    "Value [95% interval]; the arrow shows which way is better. Rank: the places that a row may "
    "have by the first figure, given what the images can tell; rows that share a letter are not "
    "told apart. In each column, bold is the best, ≈ is not told apart from it, * is worse "
    "(paired by image, corrected p < .05, by a difference that matters), no mark is not tested. "
    "A row is one seed unless it says otherwise, and its interval then leaves out what another "
    "seed would change. † misses the matched effect on some images: its figures that count there "
    "are of other images, and are not compared; where the main score counts there, it has no rank. "
    "Evaluations: denoiser rows, forward and backward, cached work included. A figure without an "
    "interval has none that would hold; the reason is below the table."
)

NUMBERS = re.compile(r"[-+0-9.einfa ]+")  # figures of seeds, which may begin with a sign


def write(made: Iterable[Board], folder: Path) -> list[Path]:
    """Write leaderboard.md and leaderboard.csv, and return their paths."""
    return as_text.write([head(), *map(part, made)], folder)


def head() -> Part:
    """Return what stands above all boards."""
    legend = LEGEND.replace("*", "\\*")
    return Part(f"# Leaderboard\n\n{legend}", ",".join(CSV_COLUMNS) + "\n", "[]")


def part(board: Board) -> Part:
    """Return a board as text."""
    found = list(rows([board]))
    return Part(_markdown(board), _csv(found), json.dumps(found, allow_nan=False))


def show(made: Iterable[Board], console: Console, cells: Collection[str] | None = None) -> None:
    """Print one table per board, with its notes; the sweep lists skipped cells.

    Args:
        made: the boards.
        console: where they are printed.
        cells: ids of those whose rows are shown, with their places on the whole board; None: all.
    """
    room = max(1, (console.width - NAMES_WIDTH) // FIGURE_WIDTH)
    for board in made:
        rows = [k for k, row in enumerate(board.rows) if _any_of(row.records, cells)]
        rest = [record for record in board.rest if _any_of([record], cells)]
        if not rows and not rest:
            continue
        if rows:
            console.print(_terminal_table(board, board.columns[: min(SHOWN, room)], rows))
        failed = [with_seed(r) for r in rest if r.status is Status.FAILED]
        lines = [(line, "yellow") for line in warnings(board)]
        lines += [(note, "dim") for note in notes(board)]
        lines += [(f"{board.title}: failed: {', '.join(failed)}", "red")] if failed else []
        for line, style in lines:
            console.print(line, style=style, highlight=False, markup=False)


def _any_of(records: Iterable[Record], cells: Collection[str] | None) -> bool:
    return cells is None or any(record.id in cells for record in records)


def markdown(made: Iterable[Board]) -> str:
    """Return the leaderboard as Markdown."""
    return "\n\n".join([head().markdown, *map(_markdown, made)]) + "\n"


def csv_text(made: Iterable[Board]) -> str:
    """Return the rows as CSV; what a spreadsheet would take for a formula is marked as text."""
    return head().csv + _csv(rows(made))


def rows(made: Iterable[Board]) -> Iterator[dict[str, object]]:
    """Yield one row per method and figure; skipped and failed cells have one row."""
    for board in made:
        for k, row in enumerate(board.rows):
            who = _csv_who(row.records)
            yield from (who | _csv_figure(board, k, figure) for figure in row.scores)
        yield from (_csv_who([record]) for record in board.rest)


# ---------------------------------------------------------------- words


def notes(board: Board) -> list[str]:
    """Return what a reader must know of a board: what can be found at its n, and the judges."""
    lines = []
    if board.ranking is not None and board.ranking.pairs:
        pairs = board.ranking.pairs.values()
        n, m = max(c.n for c in pairs), len(pairs)
        size = board.ranking.detectable()
        finds = (
            f"so few images can tell nothing apart after correction for the number of pairs, at "
            f"least {images_for(m)} can"
            if size is None
            else f"a difference of {size:.2g} would be found with {POWER:.0%} power"
        )
        tested = "1 pair" if m == 1 else f"{m} pairs"
        least = board.smallest(board.main_score)
        lines.append(
            f"{board.main_score}: {tested} of methods on {n} images; {finds}; differences below "
            f"{least:.2g} do not matter."
        )
    if without := no_intervals(board):
        lines.append(f"No interval: {without}.")
    if board.agreements:
        shown = (f"{a.figure} {'-' if a.tau is None else f'{a.tau:.2f}'}" for a in board.agreements)
        n = max(a.n for a in board.agreements)
        lines.append(
            f"Agreement of the judges, Kendall's tau of {n} methods' order: {', '.join(shown)}."
        )
    missed = [
        f"{name} on {', '.join(row.missed)}"
        for name, row in zip(board.names, board.rows, strict=True)
        if row.missed
    ]
    if missed:
        lines.append(f"The matched effect was missed by {'; '.join(missed)}.")
    return lines


def no_intervals(board: Board) -> str:
    """Return which figures of which columns have no interval, and why, in words."""
    found: dict[str, list[str]] = {}
    for figure in board.columns:
        reasons = {
            part.removeprefix(NONE)
            for row in board.rows
            if (entry := row.scores.get(figure)) is not None and entry.low is None
            for part in entry.note.split("; ")
            if part.startswith(NONE)
        }
        for reason in sorted(reasons):
            found.setdefault(reason, []).append(figure)
    return "; ".join(f"{', '.join(figures)} ({reason})" for reason, figures in found.items())


def warnings(board: Board) -> list[str]:
    """Return what is wrong with a board: rows of several versions, judges that disagree."""
    main = [a for a in board.agreements if a.figure == board.main_score and not a.agree]
    return [
        f"Rows were made with different {name}, and are not compared across them: "
        f"{'; '.join(found)}. Run the older cells again."
        for name, found in board.versions.items()
    ] + [
        f"The judges disagree: by {a.twin} the order is {', '.join(a.order)} "
        f"(tau {'undefined' if a.tau is None else f'{a.tau:.2f}'}). Pairs that both tell apart: "
        f"{a.told}, of them the other way round: {a.reversed}."
        for a in main
    ]


def mark(board: Board, k: int, figure: str) -> str:
    """Return "best", "tied", "worse", or "" where a row was not compared with the best."""
    ranking = board.rankings.get(figure)
    if ranking is None or k not in ranking.order or len(ranking.order) < 2:
        return ""
    best = ranking.order[0]
    if k == best:
        return "best"
    if (min(k, best), max(k, best)) not in ranking.pairs:
        return ""
    return "worse" if ranking.apart(k, best) else "tied"


def header(board: Board, figure: str) -> str:
    """Return a column's title with its direction and unit."""
    entry = board.figures[figure]
    unit = f" ({entry.unit})" if entry.unit else ""
    return f"{figure}{unit}{ARROWS[entry.higher_is_better]}"


def who(row: Row, rank: str, name: str = "") -> list[str]:
    """Return method, with its seeds where they are not the usual one, and rank.

    Args:
        row: of a board.
        rank: its places there.
        name: the board's own name for it, where rows share a label.
    """
    many = f" ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else _seed(row.first)
    name = (name or row.first.label("method")) + many
    return [name + (" †" if row.missed else ""), rank]


def with_seed(record: Record) -> str:
    """Return the method, with its seed where it is not the usual one."""
    return record.label("method") + _seed(record)


def _seed(record: Record) -> str:
    return f" seed {record.seed}" if record.seed else ""


def _heads(board: Board, columns: Sequence[str] | None = None) -> list[str]:
    shown = board.columns if columns is None else columns
    return ["method", "rank", *(header(board, figure) for figure in shown), "evaluations"]


def places(board: Board, k: int) -> str:
    """Return the places that a row may have, and its letters, or a dash."""
    if board.ranking is None or len(board.ranking.order) < 2 or k not in board.ranking.order:
        return "-"
    low, high = board.ranking.ranks[k]
    places = f"{low}" if low == high else f"{low}–{high}"
    return f"{places} {shortened(board.ranking.letters[k])}"


def shortened(letters: str) -> str:
    """Return the letters of groups with each run of four or more as its ends.

    Example:
        >>> shortened("abcdez"), shortened("yza2b2"), shortened("abc")
        ('a–ez', 'y–b2', 'abc')
    """
    alphabet = string.ascii_lowercase
    groups = re.findall(r"[a-z]\d*", letters)
    places = [alphabet.index(g[0]) + 26 * (int(g[1:] or 1) - 1) for g in groups]
    starts = [k for k, p in enumerate(places) if k == 0 or p != places[k - 1] + 1]
    runs = [groups[a:b] for a, b in pairwise([*starts, len(groups)])]
    return "".join("".join(r) if len(r) < RUN else f"{r[0]}–{r[-1]}" for r in runs)


def in_figures(entry: ScoreEntry | None) -> str:
    """Return a figure with its interval."""
    if entry is None or entry.value is None:
        return "-"
    if entry.low is None or entry.high is None:
        return f"{entry.value:.4g}"
    return f"{entry.value:.4g} [{entry.low:.4g}, {entry.high:.4g}]"


def evaluations(row: Row) -> str:
    """Return what all seeds took: evaluations of the denoiser, forward and backward."""
    forward, backward = (sum(r.total(way) for r in row.records) for way in ("forward", "backward"))
    return f"{forward}" + (f" + {backward} back" if backward else "")


# ---------------------------------------------------------------- formats


def _terminal_table(board: Board, columns: Sequence[str], rows: Iterable[int]) -> Table:
    table = Table(title=escape(board.title), title_justify="left", highlight=False)
    for k, head in enumerate(_heads(board, columns)):
        table.add_column(head, no_wrap=k < 2, justify="left" if k < 2 else "right")
    for k in rows:
        row, cells = board.rows[k], []
        for figure in columns:
            which = mark(board, k, figure)
            text = escape(in_figures(row.scores.get(figure))) + MARKS[which]
            cells.append(f"[bold]{text}[/]" if which in ("best", "tied") else text)
        table.add_row(
            *map(escape, who(row, places(board, k), board.names[k])), *cells, evaluations(row)
        )
    return table


def _markdown(board: Board) -> str:
    parts = [f"## {in_markdown(board.title)}"]
    parts += [f"> ⚠ {in_markdown(line)}" for line in warnings(board)]
    if board.rows:
        rows = [
            [
                *who(row, places(board, k), board.names[k]),
                *_markdown_cells(board, k),
                evaluations(row),
            ]
            for k, row in enumerate(board.rows)
        ]
        parts.append(_pipes(_heads(board), rows))
    parts += map(in_markdown, notes(board))
    if board.rest:
        rest = [[with_seed(r), r.status, r.reason] for r in board.rest]
        parts.append(_pipes(["method", "status", "reason"], rest))
    return "\n\n".join(parts)


def _csv(rows: Iterable[Mapping[str, object]]) -> str:
    buffer = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n")
    writer.writerows({k: in_csv(v) for k, v in row.items()} for row in rows)
    return buffer.getvalue()


def _markdown_cells(board: Board, k: int) -> list[str]:
    cells = []
    for figure in board.columns:
        which = mark(board, k, figure)
        text = in_figures(board.rows[k].scores.get(figure))
        text = f"**{text}**" if which in ("best", "tied") else text
        cells.append(text + MARKS[which].replace("*", "\\*"))
    return cells


def _pipes(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    clean = (" | ".join(in_markdown(str(x)).replace("|", "\\|") for x in r) for r in lines)
    return "\n".join(f"| {line} |" for line in clean)


def in_csv(value: object) -> object:
    """Return a cell that spreadsheets do not take for a formula."""
    odd = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if odd and not NUMBERS.fullmatch(str(value)) else value


def _csv_who(records: Sequence[Record]) -> dict[str, object]:
    first = records[0]
    names: dict[str, object] = {group: first.label(group) for group in CSV_COLUMNS[:4]}
    return names | {
        "seeds": " ".join(str(r.seed) for r in records),
        "cells": " ".join(r.id for r in records),
        "status": str(first.status),
        "reason": first.reason,
    }


def _csv_figure(board: Board, k: int, figure: str) -> dict[str, object]:
    row = board.rows[k]
    entry, ranking = row.scores[figure], board.rankings.get(figure)
    found: dict[str, object] = {
        "figure": figure, "value": entry.value, "low": entry.low, "high": entry.high,
        "n": entry.n, "unit": entry.unit, "higher_is_better": entry.higher_is_better,
        "main": figure == board.main_score, "mark": mark(board, k, figure), "note": entry.note,
        "coverage": f"{row.coverage(figure):.4g}",
        "seed_values": " ".join(str(value) for value in row.raw(figure).values()),
    }  # fmt: skip
    if figure in row.summary.seed_shares:
        found["seed_share"] = f"{row.summary.seed_shares[figure]:.4g}"
    if ranking is not None and k in ranking.order:
        found["rank_low"], found["rank_high"] = ranking.ranks[k]
        found["letters"] = ranking.letters[k]
        pair = (min(k, ranking.order[0]), max(k, ranking.order[0]))
        found["p_best"] = f"{ranking.corrected[pair]:.4g}" if pair in ranking.corrected else ""
    return found


def says(board: Board, k: int, figure: str) -> str:
    """Return all that is known of a figure besides its value, in words."""
    row, ranking = board.rows[k], board.rankings.get(figure)
    entry, twin = row.scores.get(figure), row.scores.get(twin_of(figure))
    parts = [] if entry is None else [f"n={entry.n}", entry.note]
    if ranking is not None and k in ranking.order and k != ranking.order[0]:
        best = ranking.order[0]
        pair = (min(k, best), max(k, best))
        if pair in ranking.pairs:
            gap = ranking.pairs[pair].difference * (1 if k < best else -1)
            parts.append(f"{gap:+.3g} to the best, corrected p = {ranking.corrected[pair]:.2g}")
    if twin is not None:
        parts.append(f"{twin_of(figure)}: {in_figures(twin)}")
    return f"{figure}: {'; '.join(filter(None, parts))}"
