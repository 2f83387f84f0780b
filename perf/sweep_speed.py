"""What a sweep saves: one process next to one per cell, and two warm workers next to one.

    python -m perf.sweep_speed [processes] [workers] [--seeds 12]

The sweep has two methods on two models, with as many seeds as asked for: 48 small cells by default.
"processes" compares the CPU time of the sweep with that of its cells as processes of their own, of
which one per method and model is run, and counted once for each seed. "workers" computes the same
sweep by one worker of Ray and by two, of one thread each, and compares the cells a second from the
moment when every worker has finished its first cell; this is wall time, so that nothing else may
run on the machine.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from latentbench.cells.activity import FOLDER, Logs
from latentbench.command import answered, count
from latentbench.errors import LatentbenchError

ROOT = Path(__file__).resolve().parents[1]
METHODS, MODELS = ("ddim_inversion", "edit_friendly_ddpm"), ("faces_ddpm", "faces_ldm")
CELL = ("benchmark=reconstruction_quick", "benchmark.n=8", "model.steps=4", "tracker=none",
        "runtime.device=cpu")  # fmt: skip


def seconds(results: Path, *words: str) -> float:
    """Return the CPU time of a command and of what it starts.

    Raises:
        LatentbenchError: it failed.
    """
    before = os.times()
    places = (f"results.dir={results}", f"results.cache={results}/cache")
    command = [sys.executable, "runner.py", *words, *CELL, *places]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LatentbenchError(f"{' '.join(command)} failed: {done.stderr[-1000:]}")
    after = os.times()
    return (after.children_user + after.children_system
            - before.children_user - before.children_system)  # fmt: skip


def sweep(seeds: int) -> tuple[str, ...]:
    """Return the words of the sweep."""
    each = ",".join(map(str, range(seeds)))
    return ("-m", f"model={','.join(MODELS)}", f"method={','.join(METHODS)}", f"seed={each}")


def processes(folder: Path, seeds: int) -> None:
    """Compare one process with one per cell."""
    together = seconds(folder / "together", *sweep(seeds), "runtime.threads=1")
    pairs = list(product(MODELS, METHODS))
    alone = [
        seconds(folder / f"alone{k}", f"model={model}", f"method={method}", "runtime.threads=1")
        for k, (model, method) in enumerate(pairs)
    ]
    apart = seeds * sum(alone)
    print(f"{seeds * len(pairs)} cells in one process {together:8.1f} s, each in its own "
          f"{apart:8.1f} s: {apart / together:.1f}x  aim 5", flush=True)  # fmt: skip


def workers(folder: Path, seeds: int) -> None:
    """Compare two workers with one."""
    found = []
    for number in (1, 2):
        results = folder / f"workers{number}"
        many = ("launch=ray", f"launch.workers={number}", f"runtime.threads={number}")
        seconds(results, *sweep(seeds), *many)
        (run,) = (path.parent for path in results.glob(f"runs/*/{FOLDER}"))
        found.append(cells_per_second(run))
        print(f"{number} warm workers of one thread: {found[-1]:6.2f} cells/s", flush=True)
    load = os.getloadavg()[1]
    print(f"two next to one: {found[1] / found[0]:.2f}x  aim 1.8  (load of the machine {load:.1f} "
          f"on {os.cpu_count()} cores)", flush=True)  # fmt: skip


def cells_per_second(run: Path) -> float:
    """Return the rate of a command's workers after each has finished its first cell.

    Raises:
        LatentbenchError: no cell was finished after that.
    """
    ends: dict[str, list[float]] = {}
    for worker, event in Logs(run).new():
        if event["what"] == "finished":
            ends.setdefault(worker, []).append(event["time"])
    warm = max(min(times) for times in ends.values())
    later = [time for times in ends.values() for time in times if time > warm]
    if not later:
        raise LatentbenchError("no cell was finished by warm workers; raise --seeds")
    return len(later) / (max(later) - warm)


PARTS = {"processes": processes, "workers": workers}


def run(parts: Sequence[str], seeds: int) -> int:
    """Print what was measured; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        for part in parts or PARTS:
            PARTS[part](Path(folder), seeds)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser("python -m perf.sweep_speed", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--seeds", type=count, default=12)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; known: {', '.join(PARTS)}")
    return answered(lambda: run(given.parts, given.seeds))


if __name__ == "__main__":
    sys.exit(main())
