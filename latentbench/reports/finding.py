"""Finding cells by what a person calls them: an id, a folder, or a line of a leaderboard."""

import re
from itertools import product
from pathlib import Path

from latentbench import records
from latentbench.errors import BadInput, unknown
from latentbench.paths import user_path
from latentbench.records import Record
from latentbench.reports.boards import Found

PREFIX = re.compile(r"[0-9a-f]{4,16}")  # of an id
LINE = ("benchmark", "model", "method")  # what names a line of a leaderboard


def find(question: str, results: Path) -> list[Found]:
    """Return the folders and records that a question names, at least one.

    Args:
        question: the id of a cell or the first four or more of its characters; the folder of a
            cell or of results; or a line of a leaderboard as ``benchmark/model/method``, all lines
            of a board as ``benchmark/model``, all of a benchmark as ``benchmark``. A part is the
            chosen option, or the option with the settings that the leaderboard shows.
        results: folder of the records.

    Raises:
        BadInput: nothing there is called so, more than one cell's id begins so, or the record of
            the cell is damaged.
    """
    folder = user_path(question, "the cell")
    if (folder / records.FILE).is_file():
        return [(folder, records.load(folder))]
    if (folder / "cells").is_dir():
        return records.list_records(folder) or _nothing(folder)
    if PREFIX.fullmatch(question):
        return [_by_id(question, results)]
    found = records.list_records(results) or _nothing(results)
    named = [pair for pair in found if _is_called(pair[1], question)]
    if not named:
        depth = question.count("/") + 1
        raise unknown("cell", question, {_line(record, depth) for _, record in found})
    return named


def find_one(question: str, results: Path) -> Found:
    """Return the only cell that a question names; see `find`.

    Raises:
        BadInput: there is none, or several; the message lists them.
    """
    found = find(question, results)
    if len(found) > 1:
        some = "; ".join(f"{record.id} {record.title}" for _, record in found[:8])
        raise BadInput(f"{question} names {len(found)} cells; give the id of one: {some}")
    return found[0]


def damaged(results: Path) -> list[str]:
    """Return which records below a folder of results cannot be used, and why."""
    lines = []
    for path in sorted((results / "cells").glob(f"*/{records.FILE}")):
        try:
            records.load(path.parent)
        except BadInput as error:
            lines.append(f"{path.parent.name}: {error}")
    return lines


def _by_id(prefix: str, results: Path) -> Found:
    paths = sorted((results / "cells").glob(f"{prefix}*/{records.FILE}"))
    if not paths:
        raise BadInput(f"no cell's id below {results / 'cells'} begins with {prefix}")
    if len(paths) > 1:
        names = ", ".join(path.parent.name for path in paths)
        raise BadInput(f"{prefix} begins the ids of {len(paths)} cells: {names}; write more of it")
    folder = paths[0].parent
    try:
        return folder, records.load(folder)
    except BadInput as error:
        raise BadInput(f"{paths[0]} cannot be used: {error}") from error


def _is_called(record: Record, question: str) -> bool:
    choices = [(record.names[group], record.label(group)) for group in LINE]
    names = {"/".join(parts) for parts in product(*choices)}
    return any(name == question or name.startswith(f"{question}/") for name in names)


def _line(record: Record, depth: int) -> str:
    return "/".join(record.names[group] for group in LINE[:depth])


def _nothing(results: Path) -> list[Found]:
    raise BadInput(f"no record below {results / 'cells'}; run some cells first: make demo")
