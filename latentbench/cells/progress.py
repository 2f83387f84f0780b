"""What the terminal shows while cells run: bars, and one line per computed cell.

Where the output is not a terminal, only lines are printed. Skipped cells of a sweep are listed
together at its end.
"""

import re
import shlex
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from latentbench.cells import command_line
from latentbench.cells.activity import Doing, Log, Logs, device_in_words, short
from latentbench.records import Record, Status

WIDTH = 140  # where the output is a file
LOOK = 0.3  # seconds between two looks at what workers have logged
TOLD = ("id", "status", "names", "seed", "overrides", "reason")  # of a record, for its line
T = TypeVar("T")
COLOURS = {Status.OK: "green", Status.SKIPPED: "yellow", Status.FAILED: "red"}


class Display:
    """Progress of a command: on the terminal of the process that it was typed into, and in logs.

    A worker of a launcher has no terminal; what it says goes into its log, which the command's own
    process shows. Without either, as in a library's use, lines are printed and nothing is logged.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        if not self.console.is_terminal:
            self.console = Console(stderr=True, width=WIDTH)
        self._bars: Progress | None = None
        self._log: Log | None = None
        self._done = 0
        self.total: int | None = None
        self._skipped: list[Record] = []
        self._others: dict[str, tuple[Doing, TaskID]] = {}
        self._over = threading.Event()
        self._following: threading.Thread | None = None

    def start(self, total: int | None, folder: Path | None = None) -> None:
        """Begin in the process that the command was typed into.

        Args:
            total: the number of cells where it is known.
            folder: the command's, for the logs; None: there are none.
        """
        self._done, self.total = 0, total
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        self._cells = self._bars.add_task("cells", total=total)
        self._batches = self._bars.add_task("", visible=False)
        if self.console.is_terminal:
            self._bars.start()
        if folder is not None:
            self._log = Log(folder)
            self._log.write("started", total=total, command=shlex.join(sys.argv))
            self._follow(Logs(folder, but=self._log.path))

    def log_to(self, folder: Path) -> None:
        """Begin in a worker: from now on all is logged, and nothing printed."""
        if self._log is None or self._log.path.parent.parent != folder:
            self._log = Log(folder)

    def stop(self) -> None:
        """Take the bars away, and tell which cells of a sweep were skipped."""
        if self._following is not None:
            self._over.set()
            self._following.join()
            self._following = None
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        if self._log is not None:
            self._log.write("stopped")
        self._log = None
        if self._skipped:
            self.console.print(f"{len(self._skipped)} cells skipped:", highlight=False)
        for line in grouped(self._skipped):
            self.console.print("  " + line, style="dim", markup=False, highlight=False)
        self._skipped = []

    @property
    def running(self) -> bool:
        """Whether a command was typed into this process; workers of a launcher have no bars."""
        return self._bars is not None

    @property
    def _silent(self) -> bool:
        return self._log is not None and self._bars is None

    def begun(self, cell: str, device: str) -> None:
        """Say that a cell is computed from now on.

        Args:
            cell: the cell in words.
            device: where its networks run, as torch names it.
        """
        if self._log is not None:
            self._log.write("begun", cell=cell, device=device_in_words(device))

    def phase(self, words: str) -> None:
        """Say what the current cell is doing."""
        if self._log is not None:
            self._log.write("phase", words=words)
        if self._bars is not None:
            self._bars.reset(self._batches, total=None, description=f"  {words}", visible=True)

    def step(self, done: int, count: int) -> None:
        """Say how many steps of the current phase are done."""
        if self._log is not None:
            self._log.progress(done, count)
        if self._bars is not None:
            self._bars.update(self._batches, total=count, completed=done)

    def batches(self, items: Iterable[T], total: int, words: str) -> Iterator[T]:
        """Yield the items and tell after each."""
        self.phase(words)
        for done, item in enumerate(items, 1):
            yield item
            self.step(done, total)

    def say(self, words: str, style: str = "") -> None:
        """Print a line that does not belong to a finished cell."""
        if self._silent and self._log is not None:
            self._log.write("told", words=words, style=style)
        else:
            self.console.print(words, style=style, soft_wrap=True, markup=False, highlight=False)

    def tell(self, words: str) -> None:
        """Print a line on what happens besides."""
        self.say(words, "dim")

    def left(self) -> None:
        """Say that this process is done with a cell of which another tells how it ended."""
        if self._log is not None:
            self._log.write("left")

    def finished(self, record: Record, note: str) -> None:
        """Print one line about a finished cell; a sweep's skipped cells wait for its end."""
        if self._log is not None:
            told = {name: getattr(record, name) for name in TOLD}
            self._log.write("finished", note=note, **told)
        if self._bars is not None:
            self._bars.update(self._batches, visible=False)
        if not self._silent:
            self._show_finished(record, note)

    def _show_finished(self, record: Record, note: str) -> None:
        self._done += 1
        if self._bars is not None:
            self._bars.update(self._cells, advance=1)
        if record.status is Status.SKIPPED and self.total != 1:
            self._skipped.append(record)
            return
        count = f"{self._done}/{self.total}" if self.total else str(self._done)
        status = f"[{COLOURS[record.status]}]{record.status:7}[/]"
        self.console.print(f"{count:>7} {status} {escape(record.title)} {note}", highlight=False)
        if record.reason:
            self.console.print(" " * 9 + record.reason, style="dim", markup=False, highlight=False)

    def _follow(self, logs: Logs) -> None:
        """Show what workers log, from a thread of its own."""

        def follow() -> None:
            while not self._over.wait(LOOK):
                self._show(logs)
            self._show(logs)

        self._over.clear()
        self._following = threading.Thread(target=follow, daemon=True)
        self._following.start()

    def _show(self, logs: Logs) -> None:
        for process, event in logs.new():
            what, bars = event.pop("what"), self._bars
            if bars is None:
                return
            if process not in self._others:
                self._others[process] = Doing(), bars.add_task("", visible=False)
            command_line.progress.begun |= what == "begun"
            doing, bar = self._others[process]
            doing.take({"what": what, **event})
            words = f"  {escape(str(doing))}"
            bars.update(
                bar,
                description=words,
                completed=doing.done,
                total=doing.total,
                visible=bool(doing.cell),
            )
            if what == "told":
                self.say(event["words"], event["style"])
            elif what == "finished":
                where = "" if doing.owner is None else f" ({short(doing.owner)})"
                told: dict[str, Any] = {name: event[name] for name in TOLD}
                told["status"], told["overrides"] = Status(told["status"]), tuple(told["overrides"])
                self._show_finished(Record(**told, config={}), event["note"] + where)


def grouped(skipped: Iterable[Record]) -> list[str]:
    """Return one line per benchmark and reason: ``interpolation: has no verb edit: a, b on m``.

    A reason is given without its subject, and without what would fit.
    """
    groups: dict[tuple[str, str, str], dict[str, None]] = {}
    for record in skipped:
        reason = re.split(r", which |; it has |\. What fits", record.reason.partition(" ")[2])[0]
        key = record.label("benchmark"), reason, record.names["model"]
        groups.setdefault(key, {})[record.names["method"]] = None
    lines: dict[str, list[str]] = {}  # models that lack the same for the same methods share one
    for (what, reason, model), methods in groups.items():
        lines.setdefault(f"{what}: {reason}: {', '.join(methods)}", []).append(model)
    return [f"{line} on {', '.join(models)}" for line, models in lines.items()]


display = Display()
