"""The life of a cell: plan, check, load, fit, run in batches, score, record.

A cell is benchmark x method x model x dataset x seed. It goes in as a composed config and comes
out as a record; everything shown later is made of records. Read `run_cell` first, then `compute`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from omegaconf import DictConfig

from latentbench.benchmark import Bench, Work
from latentbench.cells.beginning import begin, settle
from latentbench.cells.checks import check, listed, why_skipped
from latentbench.cells.costs import Cost
from latentbench.cells.environment import environment, peak_memory
from latentbench.cells.failure import begun, failed
from latentbench.cells.known import remember
from latentbench.cells.loading import hot_part, load
from latentbench.cells.lock import Busy
from latentbench.cells.plan import Cell, plan
from latentbench.cells.progress import display
from latentbench.cells.scoring import CHUNK, Scorer
from latentbench.cells.sharing import share
from latentbench.cells.shelf import Shelf
from latentbench.cells.surroundings import check_surroundings
from latentbench.cells.working_folder import Finished, in_order
from latentbench.config import Overwrite
from latentbench.errors import BadInput, Incompatible
from latentbench.metric import Surroundings
from latentbench.records import Record, Status
from latentbench.reports.pictures import Pictures
from latentbench.zoo.judges import load_judge

T = TypeVar("T")


def run_cell(
    config: DictConfig, names: Mapping[str, str], overrides: Sequence[str] = (), wait: bool = True
) -> tuple[Record, bool]:
    """Return a cell's record, and whether it was made just now.

    An error becomes a failed record, unless `runtime.fail_fast` is on; a record that is there
    already is made again only where `results.overwrite` says so. A cell is computed by one process
    at a time, or with `runtime.shards` by several; the others take its record.

    Args:
        config: the composed config, see conf/config.yaml.
        names: group -> chosen option, for "benchmark", "method", "model" and "dataset".
        overrides: the command line's settings besides the choices.
        wait: whether to wait where another process computes this cell.

    Raises:
        BadInput: `seed`, `runtime` or `results` are wrong.
        Busy: other processes compute what is left of it, and `wait` is false.
    """
    check_surroundings(config)
    shelf, blank = Shelf.of(config), begun(config, names, overrides)
    try:
        blank = replace(blank, environment=environment())
        cell = plan(config, shelf, blank)
        reason = why_skipped(cell)
        if reason is None:
            check(cell)
        remember(config, cell.id, cell.identity, reason)
        blank = cell.blank  # so that a refusal is of this cell's id, in whose place none is written
        shelf.refuse_newer(cell.id)
        old = shelf.read(cell.id)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a part may raise what it likes
        return shelf.save(failed(blank, error, config.runtime.fail_fast)), True
    if reason is not None:
        skipped = replace(cell.blank, status=Status.SKIPPED, reason=reason)
        if old is not None and (old.status, old.reason) == (skipped.status, reason):
            return old, False
        return shelf.save(skipped), True
    if shelf.is_due(old):
        ended = _ended(cell, lambda: share(cell, shelf, wait)) if cell.runtime.shards > 1 else None
        with shelf.held(cell.id, wait):
            old = shelf.read(cell.id)
            if old is None or shelf.is_due(old):  # else another process has made it meanwhile
                if shelf.overwrite is Overwrite.always:
                    shelf.clear(cell.id)
                record = ended or _ended(cell, lambda: compute(cell))
                return _saved(shelf, record)
    if old is None:
        return _not_computed(cell.blank), False
    shelf.tidy(old)
    return old, False


def lost(
    config: DictConfig, names: Mapping[str, str], overrides: Sequence[str], reason: str
) -> tuple[Record, bool]:
    """Return the failed record of a cell whose process died, and whether it was made just now.

    A record that is there already stays.

    Args:
        config: the composed config.
        names: group -> chosen option.
        overrides: the command line's settings besides the choices.
        reason: what is known of the death.
    """
    shelf = Shelf.of(config)
    blank = replace(begun(config, names, overrides), environment=environment())
    cell = plan(config, shelf, blank)
    old = shelf.read(cell.id)
    if old is not None:
        return old, False
    return shelf.save(replace(cell.blank, reason=reason, may_pass=True)), True


def _ended(cell: Cell, work: Callable[[], T]) -> T | Record:
    """Return what a work on a cell returns, or the record of the error that ended it.

    Raises:
        Busy, KeyboardInterrupt: these are no faults of the cell.
    """
    display.begun(cell.blank.title, str(cell.device))
    try:
        return work()
    except (Busy, KeyboardInterrupt):
        raise
    except Incompatible as error:  # what no class could tell before loading
        return replace(cell.blank, status=Status.SKIPPED, reason=str(error))
    except BaseException as error:
        hot_part.cache_clear()  # what the error left behind must not reach the next cell
        return failed(cell.blank, error, cell.runtime.fail_fast)


def _saved(shelf: Shelf, record: Record) -> tuple[Record, bool]:
    """Write the record of a cell; one that failed does not replace one that is ok."""
    if record.status is Status.FAILED:
        old = shelf.read(record.id)
        if old is not None and old.status is Status.OK and not shelf.is_due(old):
            return old, False  # made by a process that took over while this one was suspended
    return shelf.save(record), True


def compute(cell: Cell) -> Record:
    """Load, fit, run and score; all but the record itself is on disk when this returns."""
    settle(cell.seed, cell.runtime.threads)
    load_cost, score_cost = Cost(), Cost()
    with torch.no_grad():
        with load_cost.measure():
            bench = load(cell)
        runner, works, costs = begin(cell, bench)
        costs["run"], failures = runner.finish(display.batches(works, len(works), "batches"))
        with score_cost.measure(bench.cache):
            scorer, files = score(cell, bench, runner.finished, works)
    costs |= {"load": load_cost, "score": score_cost}
    if all(entry.value is None for entry in scorer.scores.values()):
        notes = {name: entry.note for name, entry in scorer.scores.items()}
        raise BadInput(f"no metric gave a figure: {listed(scorer.switched_off | notes)}")
    return replace(
        cell.blank,
        status=Status.OK,
        scores=scorer.scores,
        setup=runner.setup,
        imported_fit=runner.bench.imported,
        imported_subjects=tuple(sorted(runner.imported)),
        switched_off=scorer.switched_off,
        failed_samples=failures,
        asked=sum(work.kept for work in works),
        files=files,
        evaluations={name: cost.evaluations() for name, cost in costs.items()},
        seconds={name: round(cost.seconds, 3) for name, cost in costs.items()},
        memory=peak_memory(),
        batch_size=runner.bench.batch_size,
        threads=torch.get_num_threads(),
        device=str(cell.device),
    )


def score(
    cell: Cell, bench: Bench, get: Callable[[Work], Finished], works: Sequence[Work]
) -> tuple[Scorer, dict[str, str]]:
    """Score all samples in an order that depends on nothing else; write table and pictures.

    Returns:
        The scores, and the sha256 of each file that was written.
    """
    display.phase("scoring")
    weights, folder = cell.places.weights, cell.places.cells / cell.id
    surroundings = Surroundings(bench.dataset, cell.device, bench.cache, load_judge, weights)
    scorer = Scorer(cell.metrics, surroundings, cell.switched_off)
    groups = cell.benchmark.groups(bench.dataset)
    pictures = Pictures(cell.images, groups)
    for samples in in_order(get, works, groups, CHUNK):
        scorer.update(samples)
        pictures.update(samples)
    return scorer, scorer.finish(folder) | pictures.save(folder)


def _not_computed(blank: Record) -> Record:
    reason = "no record is there, and results.overwrite=never computes nothing"
    return replace(blank, status=Status.SKIPPED, reason=reason)
