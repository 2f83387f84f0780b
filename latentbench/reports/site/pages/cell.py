"""A page per cell: question, command, figures, pictures, values per image, costs, environment."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from latentbench.records import (
    EFFECT,
    GRID,
    HEADLINE,
    Record,
    ScoreEntry,
    Status,
    read_samples,
)
from latentbench.reports.boards import Board
from latentbench.reports.leaderboard import header, places
from latentbench.reports.site import gallery
from latentbench.reports.site.contents import Contents, board_slug, slug
from latentbench.reports.site.pieces import Made, Piece
from latentbench.reports.site.tables import (
    Column,
    bar,
    column,
    interval,
    scale,
)
from latentbench.reports.site.templating import render

MOST = 2000  # rows of samples on a page
DIGITS = 4  # of values per image

Place = tuple[Board, int]


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield a page per cell, with its picture and its record."""
    lines = {r.id: (b, k) for b in contents.boards for k, row in enumerate(b.rows)
             for r in row.records}  # fmt: skip
    boards = {r.id: b for b in contents.boards for r in b.rest}
    for folder, record in contents.found:
        place = lines.get(record.id)
        board = place[0] if place else boards.get(record.id)
        values = {
            "board": board and f"boards/{board_slug(board)}.html",
            "gallery": gallery.address(place[0]) if place and gallery.is_in(record) else "",
            "rank": _rank(place),
            "columns": {f: column(e, f, contents.meanings) for f, e in record.scores.items()},
            "question": contents.meanings.benchmark(record.names["benchmark"]).question,
        }
        key = values | {"columns": {f: asdict(c) for f, c in values["columns"].items()}}
        yield Piece(
            f"cells/{slug(record.id)}",
            [contents.keys[record.id], key],
            lambda folder=folder, record=record, values=values: _files(folder, record, values),
        )


def _rank(place: Place | None) -> str:
    """Return the places that a cell's row may have, and of how many."""
    if place is None:
        return ""
    board, k = place
    words = places(board, k)
    return "" if words == "-" or board.ranking is None else (
        f"{words.partition(' ')[0]} of {len(board.ranking.order)} by "
        f"{header(board, board.main_score)}"
    )  # fmt: skip


def _files(folder: Path, record: Record, values: dict[str, Any]) -> Made:
    name = slug(record.id)
    made = {f"cells/{name}.json": record.to_json().encode()}
    picture = folder / GRID
    if GRID in record.files and picture.is_file():
        made[f"pictures/{name}.webp"] = picture.read_bytes()
    page = render(
        "cell.html",
        root="../",
        record=record,
        command=f"python runner.py {shlex.join(record.words())}",
        picture=f"pictures/{name}.webp" in made,
        json_file=f"cells/{name}.json",
        groups=_groups(record, values["columns"]),
        phases=_phases(record),
        samples=_samples(folder) if record.status is Status.OK else None,
        in_words=_json,
        lines=_lines(record, values["columns"]),
        **values,
    )
    return made | {f"cells/{name}.html": page}


def _lines(record: Record, columns: dict[str, Column]) -> list[dict[str, Any]]:
    """Return the figures of all groups together, the main score first."""
    names = [name for name in record.scores if "/" not in name]
    names.sort(key=lambda name: name != record.main_score)
    return [_entry(record.scores[name], columns[name]) for name in names]


def _entry(
    entry: ScoreEntry, about: Column, ends: tuple[float, float] | None = None
) -> dict[str, Any]:
    text = "–" if entry.value is None else f"{entry.value:.4g}"
    return {
        "column": about, "text": text, "interval": interval(entry), "n": entry.n,
        "note": entry.note, "bar": None if ends is None else bar(entry, ends),
    }  # fmt: skip


def _groups(record: Record, columns: dict[str, Column]) -> dict[str, Any] | None:
    """Return the figures of each group, such as an edit: a line per group, or None."""
    names = [name.split("/", 1) for name in record.scores if "/" in name]
    if not names:
        return None
    figures, groups = (list(dict.fromkeys(part)) for part in zip(*names, strict=True))
    figures.sort(key=lambda name: name != record.main_score)
    at = {f: {g: record.scores.get(f"{f}/{g}") for g in groups} for f in figures}
    ends = {f: scale(at[f].values()) for f in figures}
    heads = {f: columns[next(f"{f}/{g}" for g in groups if at[f][g] is not None)] for f in figures}
    return {
        "figures": {f: heads[f] for f in figures},
        "lines": {
            g: [None if (e := at[f][g]) is None else _entry(e, heads[f], ends[f]) for f in figures]
            for g in groups
        },
    }


def _phases(record: Record) -> list[tuple[str, float, int, int, int]]:
    """Return seconds and evaluations of each phase: forward, backward, spared."""
    names = dict.fromkeys([*record.seconds, *record.evaluations])
    made = []
    for name in sorted(names, key=lambda name: -record.seconds.get(name, 0.0)):
        counts = record.evaluations.get(name, {})
        forward, backward, spared = (counts.get(k, 0) for k in ("forward", "backward", "spared"))
        made.append((name, record.seconds.get(name, 0.0), forward, backward, spared))
    return made


def _samples(folder: Path) -> dict[str, Any] | None:
    """Return the values per image as JSON, those that count first, and how many are left out."""
    table = read_samples(folder)
    if table is None:
        return None
    table = table.sort_values([HEADLINE], ascending=False, kind="stable")
    counts = [_counts(*pair) for pair in zip(table[HEADLINE], _effect(table), strict=True)]
    table = table.drop(columns=[HEADLINE, EFFECT], errors="ignore")
    table.insert(min(3, table.shape[1]), "counts as", counts)
    rows = [[_short(value) for value in row] for row in table.head(MOST).itertuples(index=False)]
    return {"columns": list(map(str, table.columns)), "rows": rows, "of": len(table)}


def _effect(table: pd.DataFrame) -> Sequence[bool]:
    return list(table[EFFECT]) if EFFECT in table else [False] * len(table)


def _counts(main: bool, matched: bool) -> str:
    return ", ".join([*(["main"] if main else []), *(["matched"] if matched else [])])


def _short(value: Any) -> Any:
    """Return a value as JSON can hold it, figures to a few digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if value - value == 0 else None
    return value if isinstance(value, str | int | bool) else str(value)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)
