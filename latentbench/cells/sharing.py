"""A cell that several processes compute together: each batch is made by whoever is free.

A batch is one of the list that a single process would work through, so that rows depend neither on
who makes them nor on how many there are. It has a lock of its own, which is taken over when its
owner has ended: a death costs a batch.
"""

from collections.abc import Callable, Sequence

import torch

from latentbench.benchmark import Work
from latentbench.cells.batch_runner import BatchRunner
from latentbench.cells.beginning import begin, settle
from latentbench.cells.loading import load
from latentbench.cells.lock import Busy
from latentbench.cells.plan import Cell
from latentbench.cells.progress import display
from latentbench.cells.shelf import Shelf


def share(cell: Cell, shelf: Shelf, wait: bool) -> None:
    """Make batches of a cell beside other processes, until all of them or the record are there.

    What comes before the first batch is made by one process while the others wait.

    Args:
        cell: the cell; what its batches cost is kept with them.
        shelf: where its record will be.
        wait: whether to wait where others make all that is left.

    Raises:
        Busy: they do, and `wait` is false.
    """

    def over() -> bool:
        return not shelf.is_due(shelf.read(cell.id))

    settle(cell.seed, cell.runtime.threads)
    with torch.no_grad():
        bench = load(cell)
        with shelf.held(cell.id, wait):
            if over():
                return
            runner, works, _ = begin(cell, bench)
        make_together(runner, works, over, wait)


def make_together(
    runner: BatchRunner, works: Sequence[Work], over: Callable[[], bool], wait: bool
) -> None:
    """Make the batches that nobody else makes, then wait for the others'.

    Args:
        runner: makes a batch and stores it.
        works: all batches of the cell.
        over: returns whether the cell's record is there.
        wait: see `share`.

    Raises:
        Busy: see `share`.
    """

    def make(work: Work, wait: bool) -> None:
        with runner.store.held(work, wait, display.tell):
            if not (runner.store.has(work) or over()):
                runner.finished(work)

    display.phase("batches")
    while not over() and (ahead := [work for work in works if not runner.store.has(work)]):
        busy = 0
        for made, work in enumerate(ahead, len(works) - len(ahead)):
            display.step(made, len(works))
            try:
                make(work, wait=False)
            except Busy:
                busy += 1
        if busy == len(ahead):
            make(ahead[0], wait)
