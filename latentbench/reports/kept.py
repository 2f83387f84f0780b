"""The leaderboard of a folder of which little has changed: boards are kept, and made once.

A board is kept as text under a hash of its records, their samples and the code, so that any change
of these makes another. Which content a file has is remembered with its size, inode and times, as
git does; a file whose facts have changed, or that was written a moment ago, is read again. So an
unchanged folder is looked at and not read: what damages a file behind the back of its times is
found by the commands that read it, such as `latentbench show CELL`.

All of this lies in the checkout's cache and may be removed at any time. Two processes may use it at
once: files are written whole under their own seal, and a board that the other has removed is made
again.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentbench import store
from latentbench.content import content_hash
from latentbench.index import Sources
from latentbench.paths import CHECKOUT
from latentbench.reports.as_text import Part

if TYPE_CHECKING:
    from latentbench.records import Record

FOLDER = CHECKOUT / ".cache" / "latentbench" / "boards"
PLACE, LISTING, PART = "results.txt", ".cells", ".part"
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

    def parts(self) -> list[Part]:
        """Return the head and the boards; see `parts`."""
        before = self._listed()
        cells = {name: self._look(name, before.get(name)) for name in self._names()}
        found = {name: seen for name, seen in cells.items() if seen.content}
        self._warn(found.values())
        boards: dict[tuple[str, ...], list[str]] = {}
        for name in sorted(found, key=lambda name: found[name].rank):
            boards.setdefault(tuple(found[name].board), []).append(name)
        made = [self._part(content_hash(self._sources.digest, "head"), _head)]
        made += [self._board({name: found[name] for name in boards[key]}) for key in sorted(boards)]
        settled = {name: seen for name, seen in cells.items() if seen.is_settled(self._began)}
        if settled != before:
            self._keep(settled)
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
        made = boards.boards((folder, record) for folder, record in pairs if record is not None)
        part = leaderboard.part(made[0]) if made else None
        complete = all(row.samples_are_read for board in made for row in board.rows)
        return part, complete and all(seen.holds(folders[name]) for name, seen in cells.items())

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
        old = [p for end in (LISTING, PART) for p in self._folder.glob(f"*{end}")]
        for path in old:
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
