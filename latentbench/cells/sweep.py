"""Between Hydra and cells: one job of a sweep is one cell."""

import copy
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from latentbench import store
from latentbench.cells import command_line, known
from latentbench.cells.lock import Busy
from latentbench.cells.places import Places
from latentbench.cells.progress import display
from latentbench.cells.surroundings import check_surroundings
from latentbench.errors import BadInput, WrongCommand
from latentbench.option import Option
from latentbench.records import GROUPS, Record
from latentbench.reports import tracking

NOTE = "cell"  # file in a job's folder that says how its cell ended


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Args:
        config: the composed config.
        names: group -> chosen option.
        settings: the command line's settings besides the choices.
        note: file that will say how the cell ended.
    """

    config: DictConfig
    names: dict[str, str]
    settings: list[str]
    note: Path

    def run(self, wait: bool) -> str:
        """Compute the cell, tell the tracker, and return the cell's id.

        Raises:
            Busy: another process computes it, and `wait` is false.
        """
        record, new = self._record(wait)
        places = Places.of(self.config)
        folder = places.cells / record.id
        if new:
            tracking.track(self.config.tracker, folder, places.results)
        display.finished(record, f"{sum(record.seconds.values()):.0f} s" if new else "(was there)")
        ended = {"folder": str(folder), "status": record.status}
        try:
            store.write(self.note, json.dumps(ended).encode())
        except OSError as error:  # then it counts as a cell that did not end
            display.tell(f"{self.note} cannot be written: {error}")
        return record.id

    def _record(self, wait: bool) -> tuple[Record, bool]:
        """Return the cell's record, and whether it was made just now."""
        old = known.there(self.config)
        if old is not None:
            return old, False
        from latentbench.cells.cell import run_cell  # late: a cell that is there needs no torch

        return run_cell(self.config, self.names, self.settings, wait)


_put_off: list[Job] = []


def run_job(config: DictConfig, hydra: Any) -> str:
    """Compute the cell of one Hydra job and return the cell's id.

    A cell that another process is computing is put off: `come_back` takes it up when all others are
    done. The workers of a launcher wait for it.

    Raises:
        WrongCommand: `seed`, `runtime`, `results` or the tracker's settings are wrong.
    """
    try:
        check_surroundings(config)
    except BadInput as error:
        raise WrongCommand(str(error)) from None
    tracking.build(config.tracker)
    command_line.progress.begun = True
    names = {group: str(hydra.runtime.choices[group]) for group in GROUPS}
    settings = [text for text in hydra.overrides.task if _changes_a_part(text)]
    config, settings = without_foreign(config, settings)
    job = Job(config, names, settings, Path(hydra.runtime.output_dir) / NOTE)
    try:
        return job.run(wait=not display.running)
    except Busy as busy:
        display.tell(f"{busy}; coming back to it")
        _put_off.append(job)
        return busy.name


def come_back() -> None:
    """Compute the cells that were put off; wait only when all of them are being computed."""
    while _put_off:
        jobs = _put_off[:]
        _put_off.clear()
        for job in jobs:
            try:
                job.run(wait=False)
            except Busy:
                _put_off.append(job)
        if len(_put_off) == len(jobs):
            _put_off.pop(0).run(wait=True)


def without_foreign(config: DictConfig, settings: list[str]) -> tuple[DictConfig, list[str]]:
    """Take settings off a part that lacks them, where another choice of its group has them.

    In a sweep over methods, ``++method.images=64`` reaches every method. One that no choice of the
    group has stays, and is refused when the part is built.
    """
    config, kept = copy.deepcopy(config), []
    for text in settings:
        group, name = text.lstrip("+").split("=", 1)[0].split(".", 2)[:2]
        part = config[group]
        foreign = text.startswith("++") and "_target_" in part and _lacks(part, name)
        if foreign and _some_have(group, name):
            with open_dict(part):
                part.pop(name, None)
        else:
            kept.append(text.lstrip("+"))  # as labels and commands show it
    return config, kept


def _some_have(group: str, name: str) -> bool:
    """Return whether a choice of the group has such a setting."""
    from latentbench.cells.catalogue import sound  # late: imports the classes

    return any(_has(option.cls, name) for option in sound(group).values())


def _lacks(part: DictConfig, name: str) -> bool:
    """Return whether a part has no such setting; one that is broken fails in its own cell."""
    try:
        return not _has(Option(str(part._target_), str(part._target_), {}).cls, name)
    except BadInput:
        return False


def _has(cls: type[Any], name: str) -> bool:
    return name in inspect.signature(cls).parameters


def _changes_a_part(text: str) -> bool:
    key = text.split("=", 1)[0].lstrip("+~")
    return "." in key and key.split(".")[0] in ("benchmark", "method", "model", "dataset", "metric")
