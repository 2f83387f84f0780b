"""What the processes of a command do, on disk: a log per process, one event per line.

Each process appends to a file of its own below the command's folder, `activity/HOST-PID.jsonl`.
The command's own terminal follows the logs of its workers, wherever they run; `latentbench status`
reads all of them. No figure depends on a log: one that cannot be written is missed by them alone.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from latentbench.paths import on_this_machine
from latentbench.processes import Process, current

FOLDER = "activity"
PAUSE = 0.5  # seconds between two lines about the progress of one phase


class Log:
    """The log of this process.

    Args:
        folder: the command's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.owner = current()
        self.path = folder / FOLDER / f"{short(self.owner).replace(':', '-')}.jsonl"
        self._last = 0.0

    def write(self, what: str, **values: Any) -> None:
        """Append an event."""
        with contextlib.suppress(OSError):
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._append({"what": "process", "owner": asdict(self.owner)})
            self._append({"what": what, **values})

    def progress(self, done: int, total: int | None) -> None:
        """Append how far the phase is, unless that was said a moment ago."""
        if time.monotonic() - self._last > PAUSE:
            self._last = time.monotonic()
            self.write("progress", done=done, total=total)

    def _append(self, event: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**event, "time": time.time()}) + "\n")


class Logs:
    """The logs of a command, read on from where the last look ended.

    Args:
        folder: the command's folder.
        but: a log that is not read.
    """

    def __init__(self, folder: Path, but: Path | None = None) -> None:
        self.folder, self.but = folder / FOLDER, but
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (process, event) for all whole lines since the last look."""
        for path in sorted(self.folder.glob("*.jsonl")):
            if path == self.but:
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                lines, _, rest = file.read().rpartition(b"\n")
                self._read[path] = file.tell() - len(rest)
                for line in filter(None, lines.split(b"\n")):
                    with contextlib.suppress(ValueError):
                        yield path.stem, json.loads(line)


@dataclass
class Doing:
    """What one process does.

    Args:
        owner: the process.
        cell: the cell in words, "" between two cells.
        device: where its networks run.
        phase: what it does with the cell.
        done: steps of the phase that are done.
        total: steps of the phase, None where that is not known.
        since: when the cell was begun, in seconds since 1970.
        seen: when it last said something.
    """

    owner: Process | None = None
    cell: str = ""
    device: str = ""
    phase: str = ""
    done: int = 0
    total: int | None = None
    since: float = 0.0
    seen: float = 0.0

    def take(self, event: Mapping[str, Any]) -> None:
        """Take in an event of this process."""
        self.seen = event["time"]
        if event["what"] == "process":
            self.owner = Process(**event["owner"])
        elif event["what"] == "begun":
            self.cell, self.device, self.since = event["cell"], event["device"], event["time"]
            self.phase, self.done, self.total = "", 0, None
        elif event["what"] == "phase":
            self.phase, self.done, self.total = event["words"], 0, None
        elif event["what"] == "progress":
            self.done, self.total = event["done"], event["total"]
        elif event["what"] in ("finished", "left"):
            self.cell = ""

    def alive(self) -> bool:
        """Return whether the process runs, as far as can be seen from here."""
        return self.owner is not None and self.owner.alive() is not False

    def __str__(self) -> str:
        """Return it in words: ``node3:123 cuda:0 slerp on faces_ldm ..., batches 3/10``."""
        who = "" if self.owner is None else short(self.owner)
        steps = f" {self.done}/{self.total}" if self.total else ""
        return f"{who} {self.device} {self.cell}, {self.phase}{steps}".rstrip(", ")


@dataclass
class Run:
    """What a command has done and does.

    Args:
        name: the name of its folder.
        command: its words.
        owner: the process that it was typed into.
        total: its cells; None where that is not known.
        since: when it was started.
        stopped: whether it has ended.
        finished: status -> number of finished cells.
        doing: process -> what it does.
    """

    name: str
    command: str = ""
    owner: Process | None = None
    total: int | None = None
    since: float = 0.0
    stopped: bool = False
    finished: dict[str, int] = field(default_factory=dict)
    doing: dict[str, Doing] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Return what the logs of a command's folder say."""
        run = cls(folder.name)
        for process, event in Logs(folder).new():
            one = run.doing.setdefault(process, Doing())
            one.take(event)
            if event["what"] == "started":
                run.command, run.total, run.since = event["command"], event["total"], event["time"]
                run.owner = one.owner
            elif event["what"] == "stopped":
                run.stopped = True
            elif event["what"] == "finished":
                run.finished[event["status"]] = run.finished.get(event["status"], 0) + 1
        return run

    @property
    def running(self) -> bool:
        """Whether it goes on, as far as can be seen from here."""
        return not self.stopped and self.owner is not None and self.owner.alive() is not False

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "doing": [asdict(one) for one in self._computing()]}

    def _computing(self) -> list[Doing]:
        return [one for one in self.doing.values() if one.cell and one.alive()]

    def lines(self) -> list[str]:
        """Return it in words: the command and its counts, then a line per cell in computation."""
        each = self._computing()
        done = sum(self.finished.values())
        counts = [f"{number} {status}" for status, number in sorted(self.finished.items())]
        counts += [f"{len(each)} running"]
        counts += [f"{self.total - done - len(each)} ahead"] if self.total else []
        now = time.time()
        head = f"{self.command}: {', '.join(counts)} of {self.total}, {now - self.since:.0f} s"
        return [head, *(f"{one}, {now - one.since:.0f} s" for one in each)]


def short(process: Process) -> str:
    """Return a process as a terminal names it.

    Example:
        >>> short(Process("node3/4026531836", 123))
        'node3:123'
    """
    return f"{process.host.partition('/')[0]}:{process.pid}"


def device_in_words(device: str) -> str:
    """Return a device as the machine numbers it: a worker may see one card of several.

    Args:
        device: as torch names it, "cpu" or "cuda".
    """
    cards = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return f"{device}:{cards}" if device == "cuda" and cards and "," not in cards else device


def running(results: Path) -> list[Run]:
    """Return the commands that compute into a folder of results now, the oldest first."""
    here = on_this_machine(results) / "runs"
    runs = (Run.read(path.parent) for path in sorted(here.glob(f"*/{FOLDER}")))
    return [run for run in runs if run.running]
