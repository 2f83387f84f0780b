"""Reproduction: a record against the record of the same cell computed again.

What may differ is decided by what changed between the two computations (`rule_between`): nothing,
as long as the arithmetic is the same, and float rounding otherwise (docs/architecture.md,
"Randomness and bytes").
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from latentbench import records
from latentbench.intervals import Array
from latentbench.records import Record, ScoreEntry, Status
from latentbench.reports.boards import KEYS, Found

ROUNDING = 2e-3  # of a figure's size, or of 1 where it is smaller: what float32 rounding may change
HALF = 3e-2  # the same in bfloat16 and float16
HALVES = ("bfloat16", "float16")
ARITHMETIC = ("cpu", "gpu", "packages", "threads", "batch_size", "device")  # what changes rounding
KEPT = ("value", "low", "high", "n", "replicates")  # of a figure: what is compared


class Verdict(StrEnum):
    """What became of a figure, or of a cell."""

    IDENTICAL = "identical"
    WITHIN = "within tolerance"
    DIFFERENT = "different"
    UNASKED = "cannot be asked"  # what was found says nothing about the record


@dataclass(frozen=True)
class Rule:
    """What may differ, and why.

    Args:
        tolerance: of a figure's size, or of 1 where that is smaller; 0: every byte counts.
        why: what changed, in words.
    """

    tolerance: float
    why: str

    def __str__(self) -> str:
        """Return the rule in words."""
        if not self.tolerance:
            return f"every byte: {self.why}"
        return f"{self.tolerance:g} of a figure's size, or of 1 where it is smaller: {self.why}"


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was.

    Args:
        what: its name, such as ``packages.torch``.
        was: in the record.
        now: in this computation.
    """

    what: str
    was: Any
    now: Any


@dataclass(frozen=True)
class FigureAgain:
    """A figure of the record, and the same figure now.

    Args:
        name: the figure.
        was: in the record.
        now: in this computation, or None where it is no more.
        verdict: identical, within tolerance or different.
    """

    name: str
    was: ScoreEntry
    now: ScoreEntry | None
    verdict: Verdict

    @property
    def difference(self) -> float | None:
        """The value now minus the value then, where there are both."""
        if self.was.value is None or self.now is None or self.now.value is None:
            return None
        return self.now.value - self.was.value


@dataclass(frozen=True)
class SamplesAgain:
    """The table of samples of the record, and the one made now.

    Args:
        verdict: identical, within tolerance or different.
        words: what differs.
    """

    verdict: Verdict
    words: str = ""


@dataclass(frozen=True)
class Reproduction:
    """A cell computed again.

    Args:
        record: the record.
        again: the record made now, or None where none could be made.
        rule: what may differ.
        figures: each figure of the record.
        samples: the tables of samples, or None where one of them is missing.
        identity: what decides the scores and is not as it was: settings, versions, weights, data.
        changes: what else is not as it was: commit, lock file, packages, hardware, threads.
        why_not: why this says nothing about the record, or why it cannot be called reproduced.
    """

    record: Record
    again: Record | None = None
    rule: Rule = field(default_factory=lambda: Rule(0.0, "nothing was compared"))
    figures: Sequence[FigureAgain] = ()
    samples: SamplesAgain | None = None
    identity: Sequence[Change] = ()
    changes: Sequence[Change] = ()
    why_not: str = ""

    @cached_property
    def verdict(self) -> Verdict:
        """The worst of all; another identity is another cell, and counts as different."""
        found = {figure.verdict for figure in self.figures}
        found |= {self.samples.verdict} if self.samples is not None else set()
        if self.identity or Verdict.DIFFERENT in found:
            return Verdict.DIFFERENT
        if not found:
            return Verdict.UNASKED
        return Verdict.WITHIN if Verdict.WITHIN in found else Verdict.IDENTICAL

    @property
    def reproduced(self) -> bool:
        """Whether the record may be called reproduced."""
        return self.verdict in (Verdict.IDENTICAL, Verdict.WITHIN) and not self.why_not

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        figures = [
            {"figure": f.name, "verdict": f.verdict, "difference": f.difference}
            | {"was": asdict(f.was), "now": None if f.now is None else asdict(f.now)}
            for f in self.figures
        ]
        return {
            "cell": self.record.id,
            "title": self.record.title,
            "verdict": self.verdict,
            "reproduced": self.reproduced,
            "why_not": self.why_not,
            "rule": str(self.rule),
            "tolerance": self.rule.tolerance,
            "figures": figures,
            "samples": None if self.samples is None else asdict(self.samples),
            "identity": [asdict(change) for change in self.identity],
            "changes": [asdict(change) for change in self.changes],
        }


def exit_code(found: Sequence[Reproduction]) -> int:
    """Return 0 where all were reproduced, 1 where one differs, 2 where one cannot be told."""
    if any(one.verdict is Verdict.DIFFERENT for one in found):
        return 1
    return 0 if all(one.reproduced for one in found) else 2


def compare(recorded: Found, again: Found) -> Reproduction:
    """Compare a record with the record that the same cell gives now.

    Args:
        recorded: folder and record.
        again: folder and record of the new computation.
    """
    (old_folder, old), (new_folder, new) = recorded, again
    if new.status is not Status.OK:
        return Reproduction(old, new, why_not=f"computed again, it {new.status}: {new.reason}")
    rule = rule_between(old, new)
    return Reproduction(
        old,
        new,
        rule,
        [_figure(name, entry, new.scores.get(name), rule) for name, entry in old.scores.items()],
        _samples(old_folder, new_folder, rule),
        tuple(_identity(old, new)),
        tuple(_surroundings(old, new)),
        _why_not(old),
    )


def rule_between(old: Record, new: Record) -> Rule:
    """Return what may differ between two computations of a cell."""
    changes = [change for change in _surroundings(old, new) if not _is_new_package(change)]
    names = {change.what.partition(".")[0] for change in changes}
    changed = [name for name in ARITHMETIC if name in names]
    if not changed:
        same = "the same hardware, packages, threads and batch size"
        return Rule(0.0, same)
    halved = [t for t in HALVES if t in _values(old.config)]
    why = f"other {', '.join(changed)}" + (f", in {halved[0]}" if halved else "")
    return Rule(HALF if halved else ROUNDING, why)


def show(found: Sequence[Reproduction], console: Console) -> None:
    """Print a paragraph per cell, and a line over all."""
    for one in found:
        _show(one, console)
    counts = [(verdict, sum(one.verdict is verdict for one in found)) for verdict in Verdict]
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts if count)
    reproduced = sum(one.reproduced for one in found)
    console.print(f"{len(found)} cells: {said}; {reproduced} reproduced", highlight=False)


# ---------------------------------------------------------------- comparing


def _figure(name: str, was: ScoreEntry, now: ScoreEntry | None, rule: Rule) -> FigureAgain:
    if now is None:
        return FigureAgain(name, was, now, Verdict.DIFFERENT)
    pairs = [(getattr(was, part), getattr(now, part)) for part in KEPT]
    if all(a == b for a, b in pairs):
        verdict = Verdict.IDENTICAL
    elif rule.tolerance and was.n == now.n and all(_near(a, b, rule) for a, b in pairs[:3]):
        verdict = Verdict.WITHIN
    else:
        verdict = Verdict.DIFFERENT
    return FigureAgain(name, was, now, verdict)


def _near(a: float | None, b: float | None, rule: Rule) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= rule.tolerance * max(1.0, abs(a))


def _samples(old_folder: Path, new_folder: Path, rule: Rule) -> SamplesAgain | None:
    """Compare two tables row by row; None where one of them is missing.

    Where rounding may differ, single rows may by more than a figure, which is a mean of them: what
    they differ by is told, and only other rows or columns count.
    """
    old, new = records.read_samples(old_folder), records.read_samples(new_folder)
    if old is None or new is None:
        return None
    old, new = (table.set_index(KEYS).sort_index() for table in (old, new))
    lacking = [str(name) for name in old.columns.difference(new.columns)]
    if lacking or not old.index.equals(new.index):
        words = f"no column {', '.join(lacking)}" if lacking else "other rows"
        return SamplesAgain(Verdict.DIFFERENT, words)
    gaps = {str(c): _gap(old[c].to_numpy(float), new[c].to_numpy(float)) for c in old.columns}
    odd = {name: gap for name, gap in gaps.items() if gap}
    if not odd:
        return SamplesAgain(Verdict.IDENTICAL)
    name, largest = max(odd.items(), key=lambda pair: pair[1])
    words = f"{len(odd)} of {len(gaps)} columns, most in {name}: {largest:.3g}"
    return SamplesAgain(Verdict.WITHIN if rule.tolerance else Verdict.DIFFERENT, words)


def _gap(a: Array, b: Array) -> float:
    """Return the largest difference of two columns; infinity where one of them lacks a value."""
    if (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    return float(np.nanmax(np.abs(a - b), initial=0.0))


def _identity(old: Record, new: Record) -> Iterator[Change]:
    for part in ("config", "versions", "weights", "identity"):
        yield from _differences(part, getattr(old, part), getattr(new, part))


def _surroundings(old: Record, new: Record) -> Iterator[Change]:
    """Yield what differs between two computations and does not decide the scores."""
    yield from _differences("", old.environment, new.environment)
    for part in ("threads", "batch_size", "device"):
        yield from _differences(part, getattr(old, part), getattr(new, part))
    for way in ("forward", "backward"):
        yield from _differences(f"evaluations.{way}", old.total(way), new.total(way))


def _is_new_package(change: Change) -> bool:
    """Return whether a package was added or is gone: it has no part in what both computed."""
    return change.what.startswith("packages.") and None in (change.was, change.now)


def _differences(name: str, was: Any, now: Any) -> Iterator[Change]:
    """Yield the leaves in which two JSON values differ."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*was, *now]):
            yield from _differences(f"{name}.{key}".lstrip("."), was.get(key), now.get(key))
    elif _plain(was) != _plain(now):
        yield Change(name, was, now)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _values(config: Any) -> set[str]:
    """Return the texts among the settings of a cell."""
    if isinstance(config, Mapping):
        return {text for inner in config.values() for text in _values(inner)}
    return {config} if isinstance(config, str) else set()


def _why_not(old: Record) -> str:
    """Return why a record cannot be called reproduced, whatever its figures are now."""
    if old.environment.get("git_dirty"):
        return (
            "the record was made from a dirty tree: its code is that of no commit, so it cannot be "
            "called reproduced"
        )
    if not old.environment.get("git_commit"):
        return "the record names no commit, so it cannot be called reproduced"
    return ""


# ---------------------------------------------------------------- words


def _show(one: Reproduction, console: Console) -> None:
    console.print(f"[bold]{one.record.id}[/] {escape(one.record.title)}", highlight=False)
    different = one.verdict is Verdict.DIFFERENT
    colour = "red" if different else "green" if one.reproduced else "yellow"
    console.print(f"  [{colour}]{one.verdict}[/]  ({escape(str(one.rule))})", highlight=False)
    for line in _lines(one):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    odd = [f for f in one.figures if f.verdict is not Verdict.IDENTICAL]
    if odd:
        table = Table("figure", "recorded", "now", "difference", "verdict", highlight=False)
        for f in odd:
            gap = "-" if f.difference is None else f"{f.difference:+.3g}"
            table.add_row(escape(f.name), _entry(f.was), _entry(f.now), gap, f.verdict)
        console.print(table)


def _lines(one: Reproduction) -> Iterator[str]:
    if one.why_not:
        yield one.why_not
    if one.figures:
        same = sum(f.verdict is Verdict.IDENTICAL for f in one.figures)
        yield f"{same} of {len(one.figures)} figures are identical"
    if one.samples is not None:
        words = f" ({one.samples.words})" if one.samples.words else ""
        yield f"{records.SAMPLES}: {one.samples.verdict}{words}"
    for change in one.identity:
        yield f"another cell now: {change.what}: {change.was} -> {change.now}"
    for change in one.changes:
        yield f"{change.what}: {change.was} -> {change.now}"


def _entry(entry: ScoreEntry | None) -> str:
    if entry is None or entry.value is None:
        return "-"
    interval = "" if entry.low is None else f" [{entry.low:.6g}, {entry.high:.6g}]"
    return f"{entry.value:.8g}{interval}"
