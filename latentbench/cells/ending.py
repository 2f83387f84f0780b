"""What a command shows while its cells run and when they are done, and its exit code."""

import json
import traceback
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from latentbench import records
from latentbench.cells import command_line
from latentbench.cells.ahead import notes_of
from latentbench.cells.meanings import meanings
from latentbench.cells.progress import display
from latentbench.cells.sweep import NOTE, come_back
from latentbench.errors import LatentbenchError
from latentbench.paths import on_this_machine, place
from latentbench.records import Status
from latentbench.reports import claims, kept, leaderboard, tracking
from latentbench.reports.boards import Board, Found
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
    found = records.list_records(place(config.results.dir, "results.dir"))
    there = {record.id for _, record in found}
    faults = [f"{note['folder']} has lost its record" for note in notes
              if note["id"] not in there and note["status"] == Status.OK]  # fmt: skip
    missing = (display.total or len(notes)) - len(notes)
    faults += [f"{missing} of {display.total} cells did not end"] if missing else []
    for fault in faults:
        display.say(fault, "red")
    reported = _reported(config, found, {note["id"] for note in notes})
    failed = any(note["status"] == Status.FAILED for note in notes)
    return int(failed or bool(faults) or not reported)


def _notes(hydra: Any) -> Iterator[dict[str, str]]:
    """Yield what is noted of each cell of this command: those that were there, then by job."""
    many = hydra.mode.name == "MULTIRUN"
    folder, pattern = (hydra.sweep.dir, f"*/{NOTE}") if many else (hydra.run.dir, NOTE)
    found = Path(folder).glob(pattern)
    yield from notes_of(Path(folder))
    for path in sorted(found, key=lambda path: int(path.parent.name) if many else 0):
        yield json.loads(path.read_text())


def _reported(config: DictConfig, found: Sequence[Found], cells: Collection[str]) -> bool:
    """Show the command's own cells and write the reports; return whether that could be done.

    Args:
        config: the command's.
        found: all records of the folder of results.
        cells: ids of the command's own.
    """
    try:
        made = kept.boards(place(config.results.dir, "results.dir"), found)
        leaderboard.show(made, display.console, cells)
        _write(config, found, made)
    except Exception as error:
        if not isinstance(error, LatentbenchError | OSError):
            traceback.print_exc()
        display.say(
            f"the reports could not be made; what is there is of an earlier run: {error}", "red"
        )
        return False
    return True


def _write(config: DictConfig, found: Sequence[Found], made: Sequence[Board]) -> None:
    results = place(config.results.dir, "results.dir")
    here = on_this_machine(results)
    words = meanings(record for _, record in found)
    contents = Contents(found, made, words, results / claims.FILE)
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
