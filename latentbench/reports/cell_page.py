"""One record, as a terminal shows it: question, command, figures, costs, environment."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from latentbench.records import Record, ScoreEntry, Status
from latentbench.reports.leaderboard import ARROWS

SHORT = 12  # characters of a hash that are shown


def document(folder: Path, record: Record, question: str) -> dict[str, Any]:
    """Return the record as JSON values, with what is worked out of it.

    Args:
        folder: the cell's folder.
        record: its record.
        question: what its benchmark asks.
    """
    worked_out = {"title": record.title, "question": question, "folder": str(folder)}
    return {**worked_out, "command": command(record), **json.loads(record.to_json())}


def command(record: Record) -> str:
    """Return the command that makes the cell, ready for a shell."""
    return shlex.join(["python", "runner.py", *record.words()])


def show(folder: Path, record: Record, question: str, console: Console) -> None:
    """Print all that a record says.

    Args:
        folder: the cell's folder.
        record: its record.
        question: what its benchmark asks, or an empty text.
        console: where to print.
    """
    for part in _parts(folder, record, question):
        if isinstance(part, str):
            console.print(part, highlight=False, soft_wrap=True)
        else:
            console.print(part)


def _parts(folder: Path, record: Record, question: str) -> Iterator[RenderableType]:
    yield f"[bold]{escape(record.title)}[/]"
    if question:
        yield escape(question)
    yield f"cell    {record.id}, {record.status}, {record.created}"
    yield f"folder  {escape(str(folder))}"
    yield f"command {escape(command(record))}"
    if record.status is not Status.OK:
        yield f"reason  {escape(record.reason)}"
        if record.traceback:
            yield escape(record.traceback)
    whole = {name: entry for name, entry in record.scores.items() if "/" not in name}
    if whole:
        yield _figures(record, whole)
        parts = len(record.scores) - len(whole)
        yield f"and {parts} figures of single groups (--json has them)" if parts else ""
    for metric, why in record.switched_off.items():
        yield f"[dim]{escape(metric)} is off: {escape(why)}[/]"
    if record.failed_samples:
        yield f"[yellow]{len(record.failed_samples)} of {record.asked} samples were left out[/]"
    if record.seconds:
        yield _costs(record)
    yield _environment(record)


def _figures(record: Record, entries: Mapping[str, ScoreEntry]) -> Table:
    table = Table("figure", "value", "95% interval", "n", "note", title_justify="left")
    for name, entry in entries.items():
        unit = f" ({entry.unit})" if entry.unit else ""
        label = escape(f"{name}{unit}{ARROWS[entry.higher_is_better]}")
        value = "-" if entry.value is None else f"{entry.value:.5g}"
        known = entry.low is not None and entry.high is not None
        interval = escape(f"[{entry.low:.4g}, {entry.high:.4g}]") if known else "-"
        style = "bold" if name == record.main_score else None
        table.add_row(label, value, interval, str(entry.n), escape(entry.note), style=style)
    return table


def _costs(record: Record) -> Table:
    table = Table("phase", "seconds", "forward", "backward", "spared")
    for phase, seconds in record.seconds.items():
        counts = record.evaluations.get(phase, {})
        numbers = [str(counts.get(way, 0)) for way in ("forward", "backward", "spared")]
        table.add_row(phase, f"{seconds:.1f}", *numbers)
    return table


def _environment(record: Record) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in _surroundings(record):
        table.add_row(f"[dim]{name}[/]", escape(value))
    return table


def _surroundings(record: Record) -> Iterator[tuple[str, str]]:
    there = record.environment
    dirty = ", with changes that no commit holds" if there.get("git_dirty") else ""
    yield "commit", f"{str(there.get('git_commit'))[:SHORT]}{dirty}"
    yield "lock file", str(there.get("lock_sha256"))[:SHORT]
    yield "hardware", f"{there.get('gpu') or there.get('cpu')}, {there.get('platform')}"
    yield (
        "computed",
        f"on {record.device or '-'}, {record.threads} threads, batches of {record.batch_size}",
    )
    memory = ", ".join(f"{name} {value:.0f}" for name, value in record.memory.items())
    yield "memory", memory or "-"
    packages = there.get("packages", {})
    some = ", ".join(
        f"{n} {packages[n]}" for n in ("torch", "diffusers", "transformers") if n in packages
    )
    yield "packages", f"python {there.get('python')}, {some}"
    yield "weights", ", ".join(f"{n} {d[:SHORT]}" for n, d in record.weights.items()) or "-"
    yield "versions", ", ".join(f"{n} {v}" for n, v in record.versions.items()) or "-"
