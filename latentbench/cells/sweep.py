"""Between Hydra and cells: one job of a sweep is one cell."""

import copy
import inspect
import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from latentbench import index, store
from latentbench.cells import command_line, known
from latentbench.cells.activity import device_in_words
from latentbench.cells.constructors import FACTS
from latentbench.cells.lock import Busy, held
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
        shared = self.config.runtime.shards > 1
        record, new, there = self._record(wait)
        if new:
            places = Places.of(self.config)
            tracking.track(self.config.tracker, places.cells / record.id, places.here)
        seconds = f"{sum(record.seconds.values()):.0f} s"
        where = f" on {device_in_words(record.device)}" if record.device else ""
        words = seconds + where if new or (shared and not there) else "(was there)"
        with held(self.note.parent, True, display.tell) if shared else nullcontext():
            if shared and self.note.exists():  # another worker of this command has said it
                display.left()
            else:
                self.end(record, words)
        return record.id

    def end(self, record: Record, note: str) -> None:
        """Say on the terminal and in the job's folder how the cell ended."""
        display.finished(record, note)
        folder = Places.of(self.config).cells / record.id
        ended = {"id": record.id, "folder": str(folder), "status": record.status}
        try:
            store.write(self.note, json.dumps(ended).encode())
        except OSError as error:  # then it counts as a cell that did not end
            display.tell(f"{self.note} cannot be written: {error}")

    def _record(self, wait: bool) -> tuple[Record, bool, bool]:
        """Return the cell's record, whether it was made just now, and whether it was there."""
        old = known.there(self.config)
        if old is not None:
            return old, False, True
        from latentbench.cells.cell import run_cell  # late: a cell that is there needs no torch

        return (*run_cell(self.config, self.names, self.settings, wait), False)


_put_off: list[Job] = []


def run_job(config: DictConfig) -> str:
    """Compute the cell of the Hydra job that runs and return the cell's id.

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
    job = _job(config)
    if not display.running:
        display.log_to(Path(HydraConfig.get().sweep.dir))
    try:
        return job.run(wait=not display.running)
    except Busy as busy:
        display.tell(f"{busy}; coming back to it")
        _put_off.append(job)
        return busy.name


def _job(config: DictConfig) -> Job:
    hydra: Any = HydraConfig.get()
    names = {group: str(hydra.runtime.choices[group]) for group in GROUPS}
    settings = [text for text in hydra.overrides.task if changes_a_part(text)]
    config, settings = without_foreign(config, settings)
    return Job(config, names, settings, Path(hydra.runtime.output_dir) / NOTE)


def give_up(config: DictConfig, reason: str) -> str:
    """Record as failed a cell that a launcher could not finish, and return its id.

    It may pass another time, so that the same command computes it again. One that has ended, but
    whose worker died before it could say so, is left alone.
    """
    from latentbench.cells.cell import lost

    job = _job(config)
    if job.note.exists():
        return json.loads(job.note.read_text())["id"]
    record, new = lost(job.config, job.names, job.settings, reason)
    job.end(record, "" if new else "(was there)")
    return record.id


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

    def read() -> tuple[set[str], set[str]]:
        from latentbench.cells.catalogue import sound  # late: imports the classes

        found = sound(group).values()
        names = {name for option in found for name in _taken_by(option)}
        return names, {option.package for option in found}

    return name in _names(["settings", group], read)


def _lacks(part: DictConfig, name: str) -> bool:
    """Return whether a part has no such setting; one that is broken fails in its own cell."""
    option = Option(str(part._target_), str(part._target_), {})
    try:
        return name not in _names(
            ["settings of", option.target], lambda: ({*_taken_by(option)}, {option.package})
        )
    except BadInput:
        return False


def _taken_by(option: Option) -> Iterable[str]:
    return inspect.signature(option.cls).parameters


def _names(question: list[str], read: Callable[[], tuple[set[str], set[str]]]) -> list[str]:
    """Return names of settings: from the index of the code, as to import classes takes seconds.

    Args:
        question: what the index is asked.
        read: gives the names, and the packages that they come from, where it does not know.
    """
    of_code = index.opened(index.FOLDER)
    names = of_code.find(question)
    if names is None:
        found, packages = read()
        names = sorted(found)
        if packages <= of_code.packages:
            of_code.keep(question, names)
    return names


def changes_a_part(text: str) -> bool:
    """Return whether a word sets a part's setting: it is shown with the cell."""
    group, _, name = text.split("=", 1)[0].lstrip("+~").partition(".")
    parts = ("benchmark", "method", "model", "dataset", "metric")
    return bool(name) and name not in FACTS and group in parts
