"""What the terminal shows while cells run: two bars, and one line per computed cell.

Where the output is not a terminal, only lines are printed. Skipped cells of a sweep are listed
together at its end.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from latentbench.records import Record, Status

WIDTH = 140  # where the output is a file
T = TypeVar("T")
COLOURS = {Status.OK: "green", Status.SKIPPED: "yellow", Status.FAILED: "red"}


class Display:
    """Progress over the cells of one process and over the batches of the current cell."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        if not self.console.is_terminal:
            self.console = Console(stderr=True, width=WIDTH)
        self._bars: Progress | None = None
        self._done = 0
        self.total: int | None = None
        self._skipped: list[Record] = []

    def start(self, total: int | None) -> None:
        """Begin; `total` is the number of cells where it is known."""
        self._done, self.total = 0, total
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        self._cells = self._bars.add_task("cells", total=total)
        self._batches = self._bars.add_task("", visible=False)
        if self.console.is_terminal:
            self._bars.start()

    def stop(self) -> None:
        """Take the bars away, and tell which cells of a sweep were skipped."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        if self._skipped:
            self.console.print(f"{len(self._skipped)} cells skipped:", highlight=False)
        for line in grouped(self._skipped):
            self.console.print("  " + line, style="dim", markup=False, highlight=False)
        self._skipped = []

    def phase(self, words: str) -> None:
        """Say what the current cell is doing."""
        if self._bars is not None:
            self._bars.reset(self._batches, total=None, description=f"  {words}", visible=True)

    @property
    def running(self) -> bool:
        """Whether a command runs its cells in this process; workers of a launcher have no bars."""
        return self._bars is not None

    def say(self, words: str, style: str = "") -> None:
        """Print a line that does not belong to a finished cell."""
        self.console.print(words, style=style, soft_wrap=True, markup=False, highlight=False)

    def tell(self, words: str) -> None:
        """Print a line on what happens besides."""
        self.say(words, "dim")

    def step(self, done: int, count: int) -> None:
        """Move the bar of the current phase to a step of a fit."""
        if self._bars is not None:
            self._bars.update(self._batches, total=count, completed=done)

    def batches(self, items: Iterable[T], total: int, words: str) -> Iterator[T]:
        """Yield the items and move the bar after each."""
        self.phase(words)
        for item in items:
            yield item
            if self._bars is not None:
                self._bars.update(self._batches, total=total, advance=1)

    def finished(self, record: Record, note: str) -> None:
        """Print one line about a finished cell; a sweep's skipped cells wait for its end."""
        self._done += 1
        if self._bars is not None:
            self._bars.update(self._cells, advance=1)
            self._bars.update(self._batches, visible=False)
        if record.status is Status.SKIPPED and self.total != 1:
            self._skipped.append(record)
            return
        count = f"{self._done}/{self.total}" if self.total else str(self._done)
        status = f"[{COLOURS[record.status]}]{record.status:7}[/]"
        self.console.print(f"{count:>7} {status} {escape(record.title)} {note}", highlight=False)
        if record.reason:
            self.console.print(" " * 9 + record.reason, style="dim", markup=False, highlight=False)


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
