"""The leaderboard: a pure function of records, as Markdown, CSV and one self-contained page."""

import csv
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latentbench.cache import write_atomically
from latentbench.records import Record, ScoreEntry, Status

ARROWS = {True: " ↑", False: " ↓", None: ""}
SHOWN = 5  # figures per cell on the terminal
NAMES_WIDTH, FIGURE_WIDTH = 58, 20  # characters, on a terminal
CSV_COLUMNS = (
    "benchmark", "model", "dataset", "method", "seed", "cell", "status", "reason", "figure",
    "value", "low", "high", "n", "unit", "higher_is_better", "main", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Board:
    """The table of one benchmark.

    Args:
        benchmark: its name, with overridden settings.
        main_score: the column that rows are sorted by.
        columns: figure -> an entry that tells unit and direction.
        ok: cells with scores, by model and then from best to worst.
        rest: skipped and failed cells.
    """

    benchmark: str
    main_score: str
    columns: Mapping[str, ScoreEntry]
    ok: Sequence[Record]
    rest: Sequence[Record]

    def header(self, figure: str) -> str:
        """Return a column's title with its direction and unit."""
        entry = self.columns[figure]
        unit = f" ({entry.unit})" if entry.unit else ""
        return f"{figure}{unit}{ARROWS[entry.higher_is_better]}"


def boards(records: Iterable[Record]) -> list[Board]:
    """Return one board per benchmark and settings of it."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.label("benchmark"), []).append(record)
    return [_board(name, groups[name]) for name in sorted(groups)]


def markdown(records: Iterable[Record]) -> str:
    """Return the leaderboard as Markdown."""
    parts = ["# Leaderboard", _legend()]
    for board in boards(records):
        parts.append(f"## {board.benchmark}")
        if board.ok:
            heads = ["model", "method", *map(board.header, board.columns), "evaluations"]
            rows = [[*_who(r), *(_cell(r, c) for c in board.columns), _cost(r)] for r in board.ok]
            parts.append(_pipes(heads, rows))
        if board.rest:
            heads = ["model", "method", "status", "reason"]
            parts.append(_pipes(heads, [[*_who(r), r.status, r.reason] for r in board.rest]))
    return "\n\n".join(parts) + "\n"


def csv_text(records: Iterable[Record]) -> str:
    """Return one row per cell and figure; skipped and failed cells have one row."""
    buffer = io.StringIO()
    writer: csv.DictWriter[str] = csv.DictWriter(buffer, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        who: dict[str, object] = {group: record.label(group) for group in CSV_COLUMNS[:4]}
        who |= {"seed": record.seed, "cell": record.id, "status": str(record.status)}
        who |= {"reason": record.reason}
        writer.writerows(who | row for row in _figures(record) or [{}])
    return buffer.getvalue()


def page(records: Iterable[Record]) -> str:
    """Return a page that needs no network: sortable tables with intervals."""
    body = []
    for board in boards(records):
        body.append(f"<h2>{html.escape(board.benchmark)}</h2>")
        if board.ok:
            body.append(_html_table(board))
        if board.rest:
            body.append(_html_rest(board))
    template = files("latentbench").joinpath("leaderboard.html").read_text(encoding="utf-8")
    text = template.replace("{{legend}}", html.escape(_legend()))
    return text.replace("{{body}}", "\n".join(body))


def write(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write leaderboard.html, .md and .csv, and return their paths."""
    texts = {"html": page(records), "md": markdown(records), "csv": csv_text(records)}
    paths = [folder / f"leaderboard.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_atomically(path, text.encode())
    return paths


def show(records: Sequence[Record], console: Console) -> None:
    """Print one table per benchmark: the main score and the figures next to it."""
    for board in boards(records):
        room = max(1, (console.width - NAMES_WIDTH) // FIGURE_WIDTH)
        columns = list(board.columns)[: min(SHOWN, room)]
        table = Table(title=board.benchmark, title_justify="left", highlight=False)
        for head in ("model", "method"):
            table.add_column(head, no_wrap=True)
        for head in [*map(board.header, columns), "evaluations"]:
            table.add_column(head, justify="right")
        for record in board.ok:
            table.add_row(*_who(record), *(_cell(record, c) for c in columns), _cost(record))
        for record in board.rest:
            empty = ["" for _ in columns]
            table.add_row(*_who(record), *empty, record.status, style="dim")
        console.print(table)


def _board(benchmark: str, records: Sequence[Record]) -> Board:
    ok = [r for r in records if r.status is Status.OK]
    main = ok[0].main_score if ok else ""
    columns = {k: v for r in ok for k, v in r.scores.items() if "/" not in k}
    first = {main: columns[main]} if main in columns else {}
    ok.sort(key=lambda r: (r.label("model"), r.label("dataset"), _rank(r, first.get(main))))
    rest = [r for r in records if r.status is not Status.OK]
    return Board(benchmark, main, first | columns, ok, rest)


def _rank(record: Record, column: ScoreEntry | None) -> float:
    entry = record.scores.get(record.main_score)
    if entry is None or entry.value is None or column is None:
        return float("inf")
    return -entry.value if column.higher_is_better else entry.value


def _who(record: Record) -> list[str]:
    method = record.label("method") + (f" seed {record.seed}" if record.seed else "")
    model, data = record.label("model"), record.label("dataset")
    return [model if data == "faces" else f"{model}, {data}", method]


def _cell(record: Record, figure: str) -> str:
    entry = record.scores.get(figure)
    if entry is None or entry.value is None:
        return "-"
    if entry.low is None or entry.high is None:
        return f"{entry.value:.4g}"
    return f"{entry.value:.4g} [{entry.low:.3g}, {entry.high:.3g}]"


def _cost(record: Record) -> str:
    backward = record.total("backward")
    return f"{record.total('forward')}" + (f" + {backward} back" if backward else "")


def _figures(record: Record) -> list[dict[str, object]]:
    return [
        {
            "figure": name,
            "value": e.value,
            "low": e.low,
            "high": e.high,
            "n": e.n,
            "unit": e.unit,
            "higher_is_better": e.higher_is_better,
            "main": name == record.main_score,
            "note": e.note,
        }
        for name, e in record.scores.items()
    ]


def _legend() -> str:
    return (
        "Value [95% interval]; the arrow shows which way is better. Sorted within each model by "
        "the first figure. Evaluations: denoiser rows, forward and backward, cached work included. "
        "A figure without an interval has none that is valid at its n."
    )


def _pipes(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    clean = (" | ".join(str(x).replace("|", "\\|").replace("\n", " ") for x in r) for r in lines)
    return "\n".join(f"| {line} |" for line in clean)


def _html_table(board: Board) -> str:
    heads = ["model", "method", *map(board.header, board.columns), "evaluations"]
    rows = []
    for record in board.ok:
        cells = [_td(text, text) for text in _who(record)]
        cells += [_html_cell(record, figure) for figure in board.columns]
        cells.append(_td(_cost(record), record.total("forward") + record.total("backward")))
        rows.append(f'<tr title="cell {record.id}">{"".join(cells)}</tr>')
    return _html(heads, rows)


def _html_cell(record: Record, figure: str) -> str:
    entry = record.scores.get(figure)
    value = None if entry is None else entry.value
    note = "" if entry is None else f"n={entry.n} {entry.note}".strip()
    return _td(_cell(record, figure), "" if value is None else value, note)


def _td(text: str, key: object, note: str = "") -> str:
    title = f' title="{html.escape(note)}"' if note else ""
    return f'<td data-key="{html.escape(str(key))}"{title}>{html.escape(text)}</td>'


def _html_rest(board: Board) -> str:
    heads = ["model", "method", "status", "reason"]
    rows = []
    for record in board.rest:
        texts = [*_who(record), str(record.status), record.reason]
        rows.append(f"<tr>{''.join(_td(text, text) for text in texts)}</tr>")
    return (
        f"<details><summary>{len(rows)} skipped or failed</summary>{_html(heads, rows)}</details>"
    )


def _html(heads: Sequence[str], rows: Sequence[str]) -> str:
    top = "".join(f'<th scope="col"><button>{html.escape(h)}</button></th>' for h in heads)
    body = "\n".join(rows)
    return f"<div><table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
