"""What a command shows while its cells run and when they are done, and its exit code."""

import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from latentbench import records
from latentbench.cells import command_line
from latentbench.cells.meanings import meanings
from latentbench.cells.progress import display
from latentbench.cells.sweep import NOTE, come_back
from latentbench.errors import LatentbenchError
from latentbench.paths import on_this_machine, place
from latentbench.records import Status
from latentbench.reports import leaderboard, tracking
from latentbench.reports.boards import boards
from latentbench.reports.site.build import FOLDER, build
from latentbench.reports.site.contents import Contents


class Ending(Callback):
    """Shows progress while cells run. The end is `finish`, where no error becomes a warning."""

    def on_run_start(self, config: DictConfig, **kwargs: object) -> None:
        """Begin with one cell."""
        command_line.progress.started = config
        display.start(1, Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Begin with as many cells as the sweep has."""
        command_line.progress.started = config
        display.start(command_line.count_cells(config.hydra), Path(config.hydra.sweep.dir))


def finish(config: DictConfig) -> int:
    """Compute what was put off, show the scores, write the reports; return the exit code.

    Returns:
        0, or 1: a cell failed or did not end, or a report could not be written.
    """
    come_back()
    display.stop()
    notes = list(_notes(config.hydra))
    read = [
        (note, folder := place(note["folder"], "results.dir"), records.read(folder))
        for note in notes
    ]
    faults = [f"{folder} has lost its record" for note, folder, record in read
              if record is None and note["status"] == Status.OK]  # fmt: skip
    missing = (display.total or len(notes)) - len(notes)
    faults += [f"{missing} of {display.total} cells did not end"] if missing else []
    for fault in faults:
        display.say(fault, "red")
    ended = [(folder, record) for _, folder, record in read if record is not None]
    reports = (
        _made("the table", lambda: leaderboard.show(boards(ended), display.console)),
        _made("the reports", lambda: _write(config)),
    )
    failed = any(note["status"] == Status.FAILED for note in notes)
    return int(failed or bool(faults) or not all(reports))


def _notes(hydra: Any) -> Iterator[dict[str, str]]:
    """Yield what each cell of this command said when it ended, in their order."""
    many = hydra.mode.name == "MULTIRUN"
    folder, pattern = (hydra.sweep.dir, f"*/{NOTE}") if many else (hydra.run.dir, NOTE)
    found = Path(folder).glob(pattern)
    for path in sorted(found, key=lambda path: int(path.parent.name) if many else 0):
        yield json.loads(path.read_text())


def _write(config: DictConfig) -> None:
    results = place(config.results.dir, "results.dir")
    here = on_this_machine(results)
    found = records.list_records(results)
    words = meanings(record for _, record in found)
    contents = Contents.of(found, words, results)
    pages = leaderboard.write(contents.boards, results)
    display.say(f"leaderboard: {pages[0]}  (also {', '.join(p.name for p in pages[1:])})")
    first = build(contents, here / FOLDER)
    if config.hydra.mode.name == "MULTIRUN":
        rows = leaderboard.rows(contents.boards)
        tracking.track_leaderboard(config.tracker, rows, here)
    runs = here / "wandb"
    if runs.is_dir():
        display.say(f"W&B runs:    {runs}  (upload: wandb sync {runs}/*run-*)")
    display.say(f"report site: {first}")


def _made(what: str, make: Callable[[], None]) -> bool:
    """Return whether a report could be made; tell why where it could not."""
    try:
        make()
    except Exception as error:
        if not isinstance(error, LatentbenchError | OSError):
            traceback.print_exc()
        display.say(f"{what} could not be made; what is there is of an earlier run: {error}")
        return False
    return True
