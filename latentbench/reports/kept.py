"""Boards of a folder of which little has changed: they are kept, and made once.

A board is kept as text under a hash of its records, their samples and the code, so that any change
of these makes another. Which content a file has is remembered with its size, inode and times, as
git does; a file whose facts have changed, or that was written a moment ago, is read again. So an
unchanged folder is looked at and not read: what damages a file behind the back of its times is
found by the commands that read it, such as `latentbench show CELL`.

The end of a sweep and the report site show more than that text, and have read all records. For
them, what each board has found in its samples is kept under a hash of its records and the code.

All of this lies in the checkout's cache and may be removed at any time. Two processes may use it at
once: files are written whole under their own seal, and a board that the other has removed is made
again.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbench import store
from latentbench.content import content_hash
from latentbench.index import Sources
from latentbench.paths import CHECKOUT
from latentbench.reports.as_text import Part

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from latentbench.records import Record
    from latentbench.reports.boards import Board, Findings, Found

FOLDER = CHECKOUT / ".cache" / "latentbench" / "boards"
PLACE, LISTING, PART, FINDINGS = "results.txt", ".cells", ".part", ".findings"
TRIES = 3  # to make a leaderboard of records that change meanwhile
SETTLED = 2.0  # seconds after a change from which on another change shows in a file's times
Facts = list[int] | None  # size, inode and times of a file; None: it is not there


@dataclass(frozen=True)
class Seen:
    """A folder of a cell, as it was looked at.

    Args:
        facts: name of each file that boards depend on -> its facts; none of a folder whose record
            is refused, which is looked at, and warned of, each time.
        content: hash of the record and its samples; empty where there is no record.
        board: benchmark, model and data set, with the settings of each.
        rank: what cells are sorted by.
        sealed: whether the record has a seal.
    """

    facts: dict[str, Facts]
    content: str = ""
    board: list[str] = field(default_factory=list)
    rank: list[Any] = field(default_factory=list)
    sealed: bool = True

    def holds(self, folder: Path) -> bool:
        """Return whether the files are those that were looked at."""
        return all(_facts(folder / name) == facts for name, facts in self.facts.items())

    def is_settled(self, now: float) -> bool:
        """Return whether a change from now on would show in the files' times."""
        times = [time for facts in self.facts.values() if facts for time in facts[2:]]
        return bool(self.facts) and all(time < (now - SETTLED) * 1e9 for time in times)


def parts(results: Path) -> list[Part]:
    """Return the head of the leaderboard and its boards; only the head where there is no record.

    Args:
        results: folder of the records, or an address, whose boards are not kept.
    """
    if isinstance(results, Path):
        return Kept(results).parts()
    from latentbench import records
    from latentbench.reports import boards, leaderboard

    made = boards.boards(records.list_records(results))
    return [leaderboard.head(), *map(leaderboard.part, made)]


def boards(results: Path, found: Sequence["Found"]) -> list["Board"]:
    """Return the boards of records; only of those that are new, samples are read.

    Args:
        results: folder of the records, or an address, whose boards are not kept.
        found: all of its records, with their folders, as they have just been read.
    """
    if isinstance(results, Path) and results.is_dir():
        return Kept(results).boards(found)
    from latentbench.reports.boards import boards

    return boards(found)


class Kept:
    """What is kept of one folder of results.

    Args:
        results: the folder.
    """

    def __init__(self, results: Path) -> None:
        self._results, self._began = results, time.time()
        self._sources = Sources([CHECKOUT / "latentbench"])
        self._key = content_hash(self._sources.digest, str(results.resolve()))
        self._folder = FOLDER / content_hash(str(results.resolve()))[:16]
        self._listing = self._folder / f"{self._key}{LISTING}"
        self._read: dict[str, Record] = {}  # those that this process has read
        self._used = {self._listing.name}
        self._changed = False  # whether records were, while their board was made

    def boards(self, found: Sequence["Found"]) -> list["Board"]:
        """Return the boards of records; see `boards`."""
        from latentbench.reports.boards import Board, grouped

        made = []
        for names, cells in grouped(found):
            key = self._key_of(cells)
            known = self._findings(key)
            board = Board(*names, cells, known)
            if known is None and board.samples_are_read and _are_sealed(cells):
                value = _as_json().dump_python(board.findings, mode="json")
                self._write(self._place_of(key), key, value)
            made.append(board)
        self._remove_unused(FINDINGS)
        return made

    def parts(self) -> list[Part]:
        """Return the head and the boards; see `parts`.

        Records that have changed while their board was made are looked at again: one that has moved
        to another board would be on neither.
        """
        before = cells = self._listed()
        made: list[Part] = []
        for _ in range(TRIES):
            self._changed = False
            cells = {name: self._look(name, cells.get(name)) for name in self._names()}
            made = self._parts_of(cells)
            if not self._changed:
                break
        settled = {name: seen for name, seen in cells.items() if seen.is_settled(self._began)}
        if settled != before:
            self._keep(settled)
        return made

    def _parts_of(self, cells: dict[str, Seen]) -> list[Part]:
        found = {name: seen for name, seen in cells.items() if seen.content}
        self._warn(found.values())
        boards: dict[tuple[str, ...], list[str]] = {}
        for name in sorted(found, key=lambda name: found[name].rank):
            boards.setdefault(tuple(found[name].board), []).append(name)
        made = [self._part(content_hash(self._sources.digest, "head"), _head)]
        made += [self._board({name: found[name] for name in boards[key]}) for key in sorted(boards)]
        return [part for part in made if part is not None]

    def _names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(path.name for path in (self._results / "cells").iterdir())
        return []

    def _look(self, name: str, before: Seen | None) -> Seen:
        """Return what is known of a cell's folder, of which only what has changed is read."""
        folder = self._results / "cells" / name
        if before is not None and before.holds(folder):
            return before
        from latentbench import records

        names = {records.FILE, records.SAMPLES}
        facts = {name: _facts(folder / name) for name in names}
        record = records.read(folder)
        if record is None:
            return Seen({} if facts[records.FILE] else {records.FILE: None})
        facts |= {name: _facts(folder / name) for name in sorted(record.files.keys() - names)}
        self._read[name] = record
        board = [record.label(group) for group in ("benchmark", "model", "dataset")]
        rank = json.loads(json.dumps(records.rank(record)))
        content = content_hash(name, [_digest(folder / name) for name in sorted(names)])
        return Seen(facts, content, board, rank, record.sealed)

    def _warn(self, found: Iterable[Seen]) -> None:
        sealed = [seen.sealed for seen in found]
        if not all(sealed):
            from latentbench import records

            records.warn_of_unsealed(sealed, self._results)

    def _board(self, cells: dict[str, Seen]) -> Part | None:
        """Return a board, or None where its records are gone meanwhile."""
        key = content_hash(self._sources.digest, [seen.content for seen in cells.values()])
        return self._part(key, lambda: self._made(cells))

    def _made(self, cells: dict[str, Seen]) -> tuple[Part | None, bool]:
        """Return a board and whether it may be kept: its files are still what its key says."""
        from latentbench import records
        from latentbench.reports import boards, leaderboard

        folders = {name: self._results / "cells" / name for name in cells}
        pairs = [(folder, self._read.get(name) or records.read(folder))
                 for name, folder in folders.items()]  # fmt: skip
        groups = boards.grouped((f, record) for f, record in pairs if record is not None)
        made = [
            boards.Board(*names, found, self._findings(self._key_of(found)))
            for names, found in groups
        ]
        part = leaderboard.part(made[0]) if made else None
        same = all(seen.holds(folders[name]) for name, seen in cells.items())
        self._changed |= not same
        return part, same and all(board.samples_are_read for board in made)

    def _findings(self, key: str) -> "Findings | None":
        """Return what the board of a key has found, or None where that is not kept.

        None as well where the code was changed after this process began: what is kept under the
        present code's hash is not what the imported code would find.
        """
        path = self._place_of(key)
        body = store.read_sealed(path, key) if self._sources.as_imported() else None
        return None if body is None else _as_json().validate_json(body)

    def _key_of(self, found: Sequence["Found"]) -> str:
        """Return the key of a board by its records, which seal their samples."""
        return content_hash(self._sources.digest, [record.digest for _, record in found])

    def _place_of(self, key: str) -> Path:
        path = self._folder / f"{key}{FINDINGS}"
        self._used.add(path.name)
        return path

    def _part(self, key: str, make: Callable[[], tuple[Part | None, bool]]) -> Part | None:
        path = self._folder / f"{key}{PART}"
        self._used.add(path.name)
        body = store.read_sealed(path, key)
        if body is not None:
            return Part(**json.loads(body))
        part, may_be_kept = make()
        if part is not None and may_be_kept:
            self._write(path, key, asdict(part))
        return part

    def _listed(self) -> dict[str, Seen]:
        body = store.read_sealed(self._listing, self._key)
        return {} if body is None else {k: Seen(*v) for k, v in json.loads(body).items()}

    def _keep(self, cells: dict[str, Seen]) -> None:
        """Keep what was seen, and remove the boards that are no more."""
        values = {name: list(vars(seen).values()) for name, seen in cells.items()}
        self._write(self._listing, self._key, values)
        self._remove_unused(LISTING, PART)

    def _remove_unused(self, *endings: str) -> None:
        for path in [path for end in endings for path in self._folder.glob(f"*{end}")]:
            if path.name not in self._used:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _write(self, path: Path, key: str, value: Any) -> None:
        if not self._sources.as_imported():
            return
        try:
            if not self._folder.is_dir():
                _remove_orphans()
                store.write(self._folder / PLACE, os.fsencode(self._results.resolve()))
            store.write_sealed(path, key, json.dumps(value).encode())
        except OSError as error:
            store.report_once(FOLDER, error, store.NOT_KEPT)


def _head() -> tuple[Part, bool]:
    from latentbench.reports import leaderboard

    return leaderboard.head(), True


@cache
def _as_json() -> "TypeAdapter[Findings]":
    from pydantic import TypeAdapter

    from latentbench.reports.boards import Findings

    return TypeAdapter(Findings)


def _are_sealed(found: Iterable["Found"]) -> bool:
    """Return whether the samples are, still, those that the records say."""
    from latentbench.records import SAMPLES

    return all(
        record.sealed and _digest(folder / SAMPLES) == record.files.get(SAMPLES, "")
        for folder, record in found
    )


def _facts(path: Path) -> Facts:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _digest(path: Path) -> str:
    with contextlib.suppress(OSError):
        return sha256(path.read_bytes()).hexdigest()
    return ""


def _remove_orphans() -> None:
    """Remove what is kept of folders of results that are no more."""
    for folder in FOLDER.glob("*"):
        with contextlib.suppress(OSError):
            if not Path(os.fsdecode((folder / PLACE).read_bytes())).is_dir():
                store.remove_folder(folder)
