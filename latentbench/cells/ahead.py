"""Which cells of a sweep are there, told before the first one begins.

A Hydra job composes a config and makes a folder before it can say that its cell is there: that is
most of what a rerun costs when nothing is left to do. Here the ids of all cells are found from the
pieces of their configs and the index of the code, as `known.there` finds that of one. Whatever is
not known in this way is left to the cell's own job, and so is every cell that failed.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from latentbench import store
from latentbench.cells.composing import Composed, put_together
from latentbench.cells.known import Known, on_shelf, recall, recall_given
from latentbench.cells.places import Places
from latentbench.cells.progress import display
from latentbench.cells.shelf import Shelf
from latentbench.cells.surroundings import check_surroundings
from latentbench.cells.sweep import without_foreign
from latentbench.errors import BadInput, WrongCommand
from latentbench.records import Record, Status
from latentbench.reports import tracking

NOTES = "there"  # file in a command's folder that names the cells that were there at its start


def remaining(
    jobs: Sequence[Sequence[str]], compose: Callable[[list[str]], DictConfig], folder: Path
) -> list[Sequence[str]]:
    """Return the jobs of a sweep whose cells are not there, and tell of the others.

    Args:
        jobs: the words of each.
        compose: gives the whole config of some words, with Hydra's own part.
        folder: the command's.

    Raises:
        WrongCommand: `seed`, `runtime`, `results` or the tracker's settings are wrong.
    """
    found = [_look(*pair) for pair in with_surroundings(put_together(jobs, compose))]
    there = [(record, cells) for record, cells in found if record is not None]
    notes = [
        {"id": record.id, "folder": str(cells / record.id), "status": record.status}
        for record, cells in there
    ]
    try:
        store.write(folder / NOTES, json.dumps(notes).encode())
    except OSError as error:
        display.tell(f"{folder / NOTES} cannot be written, so each cell looks itself: {error}")
        return list(jobs)
    for record, _ in there:
        display.finished(record, "(was there)")
    return [words for words, (record, _) in zip(jobs, found, strict=True) if record is None]


def notes_of(folder: Path) -> list[dict[str, str]]:
    """Return what is noted of the cells that were there when a command began."""
    path = folder / NOTES
    return json.loads(path.read_text()) if path.exists() else []


@dataclass(frozen=True)
class Surroundings:
    """What cells of the same `runtime` and `results` share.

    Args:
        config: theirs, kept so that no other takes its place in memory.
        places: where their files lie.
        shelf: their records.
    """

    config: DictConfig
    places: Places
    shelf: Shelf

    @classmethod
    def of(cls, cell: Composed) -> "Surroundings":
        """Return those of a cell.

        Raises:
            WrongCommand: `seed`, `runtime`, `results` or the tracker's settings are wrong, as a
                cell's own job says.
        """
        try:
            check_surroundings(cell.rest)
        except BadInput as error:
            raise WrongCommand(str(error)) from None
        tracking.build(cell.pieces["tracker"].config)
        return cls(cell.rest, Places.of(cell.rest), Shelf.of(cell.rest))


def with_surroundings(cells: Iterable[Composed]) -> Iterator[tuple[Composed, Surroundings]]:
    """Yield each cell with its surroundings, which are made once for all that share them.

    Raises:
        WrongCommand: see `Surroundings.of`.
    """
    made: dict[int, Surroundings] = {}
    for cell in cells:
        if id(cell.rest) not in made:
            made[id(cell.rest)] = Surroundings.of(cell)
        yield cell, made[id(cell.rest)]


def recalled(cell: Composed, places: Places) -> Known | None:
    """Return what is known of a cell, or None where it is to be planned."""
    given = cell.given
    if given is None:  # its parts refer to others, or to something outside the config
        return recall(without_foreign(cell.config, cell.settings)[0])
    return recall_given(given, places)


def _look(cell: Composed, around: Surroundings) -> tuple[Record | None, Path]:
    """Return the record of a cell that needs no job, and the folder of all cells' folders.

    A cell that failed is left to its job: a launcher that shares threads out gives it another
    `runtime`, under which it may be due.
    """
    known = recalled(cell, around.places)
    found = None if known is None else on_shelf(known, around.shelf)
    failed = found is not None and found.status is Status.FAILED
    return None if failed else found, around.places.cells
