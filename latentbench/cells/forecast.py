"""What a command would compute, and what that takes: told without computing anything."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from latentbench import plugins, records
from latentbench.cells.ahead import Surroundings, recalled, with_surroundings
from latentbench.cells.composing import Composed, cells_of
from latentbench.cells.known import remember
from latentbench.cells.progress import display, grouped
from latentbench.cells.shelf import Shelf
from latentbench.cells.sweep import without_foreign
from latentbench.records import GROUPS, Record, Status

RUNS, THERE, SKIPPED, WRONG = "would run", "are there", "skipped", "would fail"


@dataclass(frozen=True)
class Outlook:
    """What would become of one cell.

    Args:
        fate: RUNS, THERE, SKIPPED or WRONG.
        record: what is known of it, with the reason where it is skipped or would fail.
    """

    fate: str
    record: Record


@dataclass(frozen=True)
class Forecast:
    """What would become of the cells of a command.

    Args:
        cells: one outlook per cell.
        evaluations: of each cell that would run, those of the denoiser that it is expected to
            take; None where that is not known.
    """

    cells: Sequence[Outlook]
    evaluations: Sequence[float | None]

    @property
    def code(self) -> int:
        """The exit code: 1 where a cell would fail."""
        return int(any(one.fate == WRONG for one in self.cells))

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        cells = [
            {"fate": one.fate, "title": one.record.title, "reason": one.record.reason}
            | {"names": dict(one.record.names), "seed": one.record.seed}
            for one in self.cells
        ]
        return {"cells": cells, "evaluations": list(self.evaluations)}

    def tell(self) -> None:
        """Print it."""
        fates = Counter(one.fate for one in self.cells)
        names = (RUNS, THERE, SKIPPED, WRONG)
        counts = ", ".join(f"{fates[name]} {name}" for name in names if fates[name])
        display.say(f"{len(self.cells)} cells: {counts}")
        for one in self.cells:
            if one.fate == RUNS:
                display.say(f"  {one.record.title}")
        for words, fate in (("skipped:", SKIPPED), ("would fail:", WRONG)):
            lines = [*grouped(one.record for one in self.cells if one.fate == fate)]
            for line in [words, *(f"  {line}" for line in lines)] if lines else []:
                display.say(line, "dim")
        display.say(_cost(self.evaluations))


def tell_cells(arguments: Sequence[str]) -> int:
    """Print what would become of the cells of a command; return the exit code.

    Args:
        arguments: the words behind the program's name.
    """
    ahead = forecast(arguments)
    ahead.tell()
    return ahead.code


def forecast(arguments: Sequence[str]) -> Forecast:
    """Return what would become of the cells of a command.

    Args:
        arguments: the words behind the program's name.
    """
    with plugins.conf():
        cells = list(with_surroundings(cells_of(arguments)))
        there = _results(around for _, around in cells)
        found = [outlook(cell, around) for cell, around in cells]
    return Forecast(found, [expected(one.record, there) for one in found if one.fate == RUNS])


def outlook(cell: Composed, around: Surroundings) -> Outlook:
    """Return what would become of a cell; no weight is read, and no class where it is known."""
    names = {group: cell.names[group] for group in GROUPS}
    given = {group: cell.pieces[group].plain for group in GROUPS}
    settings = tuple(text for piece in cell.pieces.values() for text in piece.settings)
    blank = Record("", Status.FAILED, names, cell.seed, given, overrides=settings)
    known, shelf = recalled(cell, around.places), around.shelf
    try:
        if known is None:
            config = without_foreign(cell.config, cell.settings)[0]
            name, reason = _planned(config, shelf, blank)
        else:
            name, reason = known.id, known.reason
    except Exception as error:
        return Outlook(WRONG, replace(blank, reason=f"it {type(error).__name__}: {error}"))
    if reason is not None:
        return Outlook(SKIPPED, replace(blank, reason=reason))
    return Outlook(RUNS if shelf.is_due(shelf.read(name)) else THERE, blank)


def _planned(config: DictConfig, shelf: Shelf, blank: Record) -> tuple[str, str | None]:
    """Return a cell's id, and why it is skipped."""
    from latentbench.cells.checks import check, why_skipped
    from latentbench.cells.plan import plan

    cell = plan(config, shelf, blank)
    reason = why_skipped(cell)
    if reason is None:
        check(cell)
    remember(config, cell.id, cell.identity, reason)
    return cell.id, reason


def _results(looked: Iterable[Surroundings]) -> list[Record]:
    """Return the records that are there in the folders that cells go to."""
    folders = {around.places.results for around in looked}
    return [record for folder in folders for _, record in records.list_records(folder)]


def _cost(evaluations: Sequence[float | None]) -> str:
    """Return in words what denoiser evaluations cells need, by those of like cells."""
    known = [number for number in evaluations if number]
    if not evaluations:
        return "no denoiser evaluation is needed"
    if not known:
        return "expected evaluations of the denoiser: not known, no like cell was computed yet"
    rest = len(evaluations) - len(known)
    unknown = f"; not known of {rest} more" if rest else ""
    total = f"{sum(known):,.0f}"
    return f"expected evaluations of the denoiser: {total} in {len(known)} cells{unknown}"


def expected(record: Record, there: Sequence[Record]) -> float | None:
    """Return the evaluations that a cell is expected to take, spared ones included.

    It takes what the likest computed cell took, in proportion to images and steps: one of the same
    method and benchmark, of the same model if there is one.

    Args:
        record: what is known of the cell.
        there: computed cells.

    Returns:
        The number of rows, or None where there is no like cell.
    """
    like = sorted(
        (one for one in there if one.status is Status.OK and _kind(one) == _kind(record)),
        key=lambda one: (one.names.get("model") != record.names.get("model"), one.id),
    )
    if not like:
        return None
    nearest = like[0]
    size, there_size = _size(record.config), _size(nearest.config)
    total = nearest.total("forward") + nearest.total("backward")
    return total * size / there_size if there_size else None


def _kind(record: Record) -> tuple[Any, ...]:
    return tuple(record.config[group].get("_target_") for group in ("method", "benchmark"))


def _size(config: Mapping[str, Any]) -> float:
    """Return images times steps."""
    steps = config["method"].get("steps") or config["model"].get("steps") or 1
    return config["benchmark"].get("n", 1) * steps
