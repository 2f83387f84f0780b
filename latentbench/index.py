"""An index of what the code says of itself: answers that cost seconds of imports, kept by source.

Which methods go with which models, or which id a cell has, is read on classes, and importing these
takes as long as importing torch. An answer is kept under a hash of all files that it can depend on:
the sources, yamls and model cards of this checkout and of plug-ins, and the installed packages. A
change of any of them makes a new index; an entry that is damaged is made anew. Checkouts that share
a cache have an index each; one that was not used for a day is removed when a new one is made.
"""

import hashlib
import json
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from latentbench import store
from latentbench.content import content_hash
from latentbench.paths import CHECKOUT
from latentbench.plugin_folders import packages

OWN = ("latentbench", "methods", "metrics", "benchmarks")
FOLDER = CHECKOUT / ".cache" / "latentbench"  # of the index, where no setting names another
READ = (".py", ".yaml", "card.json")  # endings of the files that decide what a class says
STARTED = time.time()


class Sources:
    """The files that decide what some code does, with the installed packages.

    Args:
        places: folders of sources, yamls and model cards.
    """

    def __init__(self, places: Iterable[Path]) -> None:
        self._files = sorted(file for place in places for file in _files(place))
        self.digest = _digest(self._files)

    def as_imported(self) -> bool:
        """Return whether all are older than this process, which has imported some."""
        return all(_changed(file) < STARTED for file in self._files)


class Index:
    """Answers by question, both JSON values, on disk.

    Args:
        folder: the cache's folder, or None to keep nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        where = {name: (CHECKOUT / name,) for name in OWN} | dict(packages())
        places = [*(place for each in where.values() for place in each), CHECKOUT / "conf"]
        self.packages = frozenset(where)
        self._sources = Sources(places)
        self.digest = self._sources.digest
        self._folder = folder

    def find(self, question: Any) -> Any:
        """Return the answer to a question, or None where it is not known."""
        path, key = self._place(question)
        body = None if path is None else store.read_sealed(path, key)
        if path is not None and body is not None:
            _note_use(path.parent)
        return None if body is None else json.loads(body)

    def keep(self, question: Any, answer: Any) -> None:
        """Keep an answer; one of a process whose sources were changed after its start is not kept.

        Args:
            question: any JSON value.
            answer: any JSON value but null.
        """
        path, key = self._place(question)
        if path is None or self._folder is None or not self._sources.as_imported():
            return
        try:
            if not path.parent.is_dir():
                _remove_unused(path.parent.parent)
            store.write_sealed(path, key, json.dumps(answer).encode())
        except OSError as error:
            store.report_once(self._folder, error, store.NOT_KEPT)

    def _place(self, question: Any) -> tuple[Path | None, str]:
        key = content_hash(self.digest, question)
        place = self._folder and self._folder / "index" / self.digest[:16] / f"{key}.sealed"
        return place, key


@cache
def opened(folder: Path | None) -> Index:
    """Return the index of a cache's folder; the sources are read once per process."""
    return Index(folder)


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if name.endswith(READ))


def _digest(files: list[Path]) -> str:
    """Return a hash of the files, and of which packages are installed for which Python."""
    digest = hashlib.sha256(json.dumps([sys.version, _installed()]).encode())
    for file in files:
        with suppress(OSError):  # removed meanwhile
            data = file.read_bytes()
            digest.update(f"\n{file}\n{len(data)}\n".encode("utf-8", "surrogateescape"))
            digest.update(data)
    return digest.hexdigest()


def _installed() -> Mapping[str, int]:
    """Return when a package was last installed or removed, by the folder that holds them."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return {folder: Path(folder).stat().st_mtime_ns for folder in sorted(folders)}


def _changed(file: Path) -> float:
    with suppress(OSError):
        return file.stat().st_ctime
    return float("inf")


@cache
def _note_use(folder: Path) -> None:
    """Say once per process that the index of these sources is in use."""
    with suppress(OSError):  # of a cache that others own
        os.utime(folder)


def _remove_unused(folder: Path) -> None:
    """Remove the indices that no command has used for a day, such as those of older sources."""
    for old in folder.glob("*"):
        if _used(old) < time.time() - store.DAY:
            shutil.rmtree(old, ignore_errors=True)


def _used(folder: Path) -> float:
    with suppress(OSError):
        return folder.stat().st_mtime
    return float("inf")  # another process has removed it
