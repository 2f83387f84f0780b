"""The life of a cell: plan, check, load, fit, run in batches, score, record.

A cell is benchmark x method x model x dataset x seed. It goes in as a composed config and comes
out as a record; everything shown later is made of records. Read `run_cell` first, then `compute`.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from latentbench.benchmark import Bench, Work
from latentbench.cells.batch_runner import BatchRunner, work_list
from latentbench.cells.checks import check, listed, why_skipped
from latentbench.cells.costs import Cost
from latentbench.cells.environment import peak_memory
from latentbench.cells.failure import failed
from latentbench.cells.known import remember
from latentbench.cells.learning import fit
from latentbench.cells.loading import hot_part, load
from latentbench.cells.plan import Cell, plan
from latentbench.cells.progress import display
from latentbench.cells.scoring import CHUNK, Scorer
from latentbench.cells.shelf import Shelf
from latentbench.cells.surroundings import check_surroundings
from latentbench.cells.working_folder import Finished, in_order
from latentbench.config import Order, Overwrite
from latentbench.errors import BadInput, Incompatible
from latentbench.metric import Surroundings
from latentbench.records import Record, Status
from latentbench.reports.pictures import Pictures
from latentbench.zoo.judges import load_judge


def run_cell(
    config: DictConfig, names: Mapping[str, str], overrides: Sequence[str] = (), wait: bool = True
) -> tuple[Record, bool]:
    """Return a cell's record, and whether it was made just now.

    An error becomes a failed record, unless `runtime.fail_fast` is on; a record that is there
    already is made again only where `results.overwrite` says so. A cell is computed by one process
    at a time; the others take its record.

    Args:
        config: the composed config, see conf/config.yaml.
        names: group -> chosen option, for "benchmark", "method", "model" and "dataset".
        overrides: the command line's settings besides the choices.
        wait: whether to wait where another process computes this cell.

    Raises:
        BadInput: `seed`, `runtime` or `results` are wrong.
        Busy: another process computes it, and `wait` is false.
    """
    check_surroundings(config)
    shelf = Shelf.of(config)
    blank = Record("", Status.FAILED, dict(names), config.seed, {}, overrides=tuple(overrides))
    try:
        cell = plan(config, shelf, blank)
        reason = why_skipped(cell)
        if reason is None:
            check(cell)
        remember(config, cell.id, cell.identity, reason)
        old = shelf.read(cell.id)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a part may raise what it likes
        return shelf.save(failed(blank, config, error)), True
    if reason is not None:
        skipped = replace(cell.blank, status=Status.SKIPPED, reason=reason)
        if old is not None and (old.status, old.reason) == (skipped.status, reason):
            return old, False
        return shelf.save(skipped), True
    if not shelf.is_due(old):
        if old is not None:
            shelf.tidy(old)
        return old or _not_computed(cell.blank), False
    with shelf.held(cell.id, wait):
        old = shelf.read(cell.id)  # another process may have made it meanwhile
        if not shelf.is_due(old):
            return old or _not_computed(cell.blank), False
        return _computed(cell, shelf)


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
    blank = Record("", Status.FAILED, dict(names), config.seed, {}, overrides=tuple(overrides))
    cell = plan(config, shelf, blank)
    old = shelf.read(cell.id)
    if old is not None:
        return old, False
    return shelf.save(replace(cell.blank, reason=reason, may_pass=True)), True


def _computed(cell: Cell, shelf: Shelf) -> tuple[Record, bool]:
    """Compute a cell and write its record, whatever happens."""
    display.begun(cell.blank.title, str(cell.device))
    try:
        record = compute(cell)
    except KeyboardInterrupt:
        raise
    except Incompatible as error:  # what no class could tell before loading
        record = replace(cell.blank, status=Status.SKIPPED, reason=str(error))
    except BaseException as error:
        hot_part.cache_clear()  # what the error left behind must not reach the next cell
        record = failed(cell.blank, cell.config, error)
    if record.status is Status.FAILED:
        old = shelf.read(cell.id)
        if old is not None and old.status is Status.OK and not shelf.is_due(old):
            return old, False  # made by a process that took over while this one was suspended
    record = shelf.save(record)
    cell.store.clear(record.status is Status.OK)
    return record, True


def compute(cell: Cell) -> Record:
    """Load, fit, run and score; all but the record itself is on disk when this returns."""
    runtime, store = cell.config.runtime, cell.store
    store.clear(cell.config.results.overwrite is Overwrite.always)
    settle(cell.config.seed, runtime.threads)
    costs = {name: Cost() for name in ("load", "fit", "score")}
    with torch.no_grad():
        with costs["load"].measure():
            bench = load(cell)
        with costs["fit"].measure(bench.cache):
            fit(cell, bench)
        setup = store.once("setup", lambda: prepare(cell, bench))
        runner = BatchRunner(
            cell.benchmark, bench, setup["values"], store, runtime.max_failed_share
        )
        works = _works(cell, bench)
        costs["run"], failures = runner.finish(display.batches(works, len(works), "batches"))
        costs["setup"] = Cost(**setup["cost"])
        with costs["score"].measure(bench.cache):
            scorer, files = score(cell, bench, runner.finished, works)
    if all(entry.value is None for entry in scorer.scores.values()):
        notes = {name: entry.note for name, entry in scorer.scores.items()}
        raise BadInput(f"no metric gave a figure: {listed(scorer.switched_off | notes)}")
    return replace(
        cell.blank,
        status=Status.OK,
        scores=scorer.scores,
        setup=setup["values"],
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


def prepare(cell: Cell, bench: Bench) -> dict[str, Any]:
    """Run the benchmark's setup, such as a calibration, and count what it cost."""
    display.phase("setting up the benchmark")
    cost = Cost()
    with cost.measure(bench.cache):
        values = cell.benchmark.setup(bench)
    return {"values": values, "cost": asdict(cost)}


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
    scorer = Scorer(cell.metrics, surroundings)
    groups = cell.benchmark.groups(bench.dataset)
    pictures = Pictures(cell.config.results.images, groups)
    for samples in in_order(get, works, groups, CHUNK):
        scorer.update(samples)
        pictures.update(samples)
    return scorer, scorer.finish(folder) | pictures.save(folder)


def _works(cell: Cell, bench: Bench) -> list[Work]:
    benchmark, data = cell.benchmark, bench.dataset
    counts = {group: benchmark.count(group, data) for group in benchmark.groups(data)}
    backwards = cell.config.runtime.order is Order.reversed
    return work_list(counts, cell.batch_size, backwards)


def settle(seed: int, threads: int) -> None:
    """Fix everything that another cell of this process may have left otherwise."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _not_computed(blank: Record) -> Record:
    reason = "no record is there, and results.overwrite=never computes nothing"
    return replace(blank, status=Status.SKIPPED, reason=reason)
