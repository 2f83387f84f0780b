"""The beginning of a cell: what its batches need, made once and found again by who comes later."""

import os
import random
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from latentbench.benchmark import Bench, Work
from latentbench.cells.batch_runner import BatchRunner, work_list
from latentbench.cells.costs import Cost
from latentbench.cells.learning import fit, refitted
from latentbench.cells.plan import Cell
from latentbench.cells.progress import display
from latentbench.config import Order


def begin(cell: Cell, bench: Bench) -> tuple[BatchRunner, list[Work], dict[str, Cost]]:
    """Fit and set up, or take what is kept of both.

    Returns:
        What runs the batches, the batches, and what fit and setup took.
    """
    costs = {"fit": Cost()}
    with costs["fit"].measure(bench.cache):
        imported = fit(cell, bench)
    fitted = replace(bench, imported=imported)
    bench = replace(fitted, refit=lambda seed: refitted(cell, fitted, seed))
    works = _works(cell, bench)
    setup = cell.store.once("setup", lambda: _setup(cell, bench, len(works)))
    costs["setup"] = Cost(**setup["cost"])
    may_fail = cell.runtime.max_failed_share
    runner = BatchRunner(cell.benchmark, bench, setup["values"], cell.store, may_fail)
    return runner, works, costs


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


def _setup(cell: Cell, bench: Bench, batches: int) -> dict[str, Any]:
    """Run the benchmark's setup, such as a calibration, and count what it cost."""
    shards = cell.runtime.shards
    if shards > batches:
        display.tell(
            f"{cell.blank.title}: runtime.shards={shards}, and it has {batches} batches of "
            f"{cell.batch_size} or fewer, so that {shards - batches} workers find none"
        )
    display.phase("setting up the benchmark")
    cost = Cost()
    with cost.measure(bench.cache):
        values = cell.benchmark.setup(bench)
    return {"values": values, "cost": asdict(cost)}


def _works(cell: Cell, bench: Bench) -> list[Work]:
    benchmark, data = cell.benchmark, bench.dataset
    counts = {group: benchmark.count(group, data) for group in benchmark.groups(data)}
    backwards = cell.runtime.order is Order.reversed
    return work_list(counts, cell.batch_size, backwards)
