"""What the small things cost, as shares of the time of `import torch` in the same run.

    python -m perf.startup [--cells 1000] [--records 10000] [--beside 400] [--runs 5]

Each command runs in turn with `python -c "import torch"`; shown are medians of the processes' CPU
time, their ratio pair by pair, and of commands that grow with the number of cells the CPU time of
each cell. The index of the code is made first, as any earlier command makes it. Cells and records
are made up, in a folder of their own: nothing is computed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from latentbench import records
from latentbench.command import answered, count
from latentbench.records import Record, Status
from latentbench.reports import kept

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "results" / "reference"
PYTHON = sys.executable
TORCH = (PYTHON, "-c", "import torch")
SEEDS = 8  # of each made-up method on one model
FAMILY = "import torch, diffusers; diffusers.UNet2DModel, diffusers.DDIMScheduler"
SWEEP = ("method=ddim_inversion,edit_friendly_ddpm", "model=faces_ddpm",
         "benchmark=reconstruction_quick", "tracker=none")  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    Args:
        name: what is measured.
        command: its words.
        aim: largest share of the yardstick's time.
        yardstick: the command that it is a share of.
        units: cells or records that it reads.
    """

    name: str
    command: tuple[str, ...]
    aim: float
    yardstick: tuple[str, ...] = TORCH
    units: int = 0


def seconds(command: Sequence[str]) -> float:
    """Return the CPU time of a command and of what it starts.

    Raises:
        CalledProcessError: it failed.
    """
    before = os.times()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    after = os.times()
    return (after.children_user + after.children_system
            - before.children_user - before.children_system)  # fmt: skip


def report(measure: Measure, runs: int) -> None:
    """Print one row."""
    seconds(measure.command)  # fills the index, and the disk's cache
    show(measure, [(seconds(measure.command), seconds(measure.yardstick)) for _ in range(runs)])


def show(measure: Measure, pairs: Sequence[tuple[float, float]]) -> None:
    """Print the medians of several runs, each of the command and its yardstick."""
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    each = f"  {1000 * ours / measure.units:.1f} ms each" if measure.units else ""
    print(f"{measure.name:60} {ours:8.2f} s {theirs:8.2f} s {ratio:7.2f}  aim {measure.aim:.2f}"
          f"{each}", flush=True)  # fmt: skip


def fill_board(folder: Path, wanted: int) -> None:
    """Fill a results folder with as many records as wanted: the reference's, with other seeds.

    After eight seeds of each, they are of another model.
    """
    found = [pair for pair in records.list_records(REFERENCE) if pair[1].status is Status.OK]
    texts = [json.loads((source / records.FILE).read_bytes()) for source, _ in found]
    samples = [(source / records.SAMPLES).read_bytes() for source, _ in found]
    for k in range(wanted):
        one = k % len(found)
        model, seed = divmod(k // len(found), SEEDS)
        names = dict(texts[one]["names"])
        names["model"] += f"_{model}" if model else ""
        target = folder / "cells" / f"{k:016x}"
        target.mkdir(parents=True)
        (target / records.SAMPLES).write_bytes(samples[one])
        made = {"id": target.name, "names": names, "seed": seed, "identity": {},
                "files": {records.SAMPLES: sha256(samples[one]).hexdigest()}}  # fmt: skip
        text = json.dumps(records.sealed(texts[one] | made))
        (target / records.FILE).write_text(text)


def change_one(folder: Path) -> None:
    """Give one record another date, so that its board is made again."""
    place = folder / "cells" / f"{0:016x}"
    record = records.load(place)
    records.write(replace(record, created=f"{record.created} again"), place)


def report_board(folder: Path, wanted: int, runs: int) -> None:
    """Print what a leaderboard takes: the first, one of an unchanged folder, one of a change."""
    fill_board(folder, wanted)
    command = (PYTHON, "-m", "latentbench.cli", "leaderboard", "--results", str(folder))
    name = f"leaderboard over {wanted} records"
    for what in ("made first", "after a change of one record"):
        time.sleep(kept.SETTLED + 1)  # files of this moment would be read again by the next
        measure = Measure(f"{name}, {what}", command, 0.5, units=wanted)
        show(measure, [(seconds(command), seconds(TORCH))])
        change_one(folder)
    time.sleep(kept.SETTLED + 1)
    report(Measure(f"{name}, unchanged", command, 0.5, units=wanted), runs)


def report_ending(folder: Path, beside: int, runs: int) -> None:
    """Print what a sweep with nothing to compute takes where the folder holds many records."""
    fill_board(folder, beside)
    command = fill_sweep(folder, 2)
    name = f"no-op rerun of 2 cells beside {beside} records"
    for what in ("made first", "after a change of one record"):
        show(Measure(f"{name}, {what}", command, 0.5), [(seconds(command), seconds(TORCH))])
        change_one(folder)
    report(Measure(f"{name}, unchanged", command, 0.5), runs)


def fill_sweep(folder: Path, wanted: int) -> tuple[str, ...]:
    """Record as many cells of a sweep over seeds as wanted, and return the sweep's command."""
    seeds = (wanted + 1) // 2
    words = (*SWEEP, f"results.dir={folder}", f"results.cache={folder}/cache")
    record_cells(words, seeds)
    return (PYTHON, "runner.py", "-m", *words, f"seed={','.join(map(str, range(seeds)))}")


def record_cells(words: Sequence[str], seeds: int) -> None:
    """Write an empty record of every cell, and what its plan finds into the index."""
    from hydra import compose

    from latentbench import plugins
    from latentbench.cells.known import remember
    from latentbench.cells.plan import plan
    from latentbench.cells.shelf import Shelf

    methods = SWEEP[0].partition("=")[2].split(",")
    with plugins.conf():
        for method in methods:
            config = compose("config", [*words[1:], f"method={method}"])
            names = {"benchmark": "reconstruction_quick", "method": method,
                     "model": "faces_ddpm", "dataset": "faces"}  # fmt: skip
            for seed in range(seeds):
                config.seed = seed
                shelf = Shelf.of(config)
                blank = Record("", Status.OK, names, seed, {})
                cell = plan(config, shelf, blank)
                remember(config, cell.id, cell.identity, None)
                shelf.save(cell.blank)


def run(cells: int, of_board: int, beside: int, runs: int) -> int:
    """Print the table; return the exit code."""
    latentbench = (PYTHON, "-m", "latentbench.cli")
    print(f"{'':60} {'it':>10} {'yardstick':>10} {'ratio':>7}")
    report(Measure("latentbench --help", (*latentbench, "--help"), 0.15), runs)
    report(Measure("runner.py --help", (PYTHON, "runner.py", "--help"), 0.15), runs)
    report(Measure("latentbench list", (*latentbench, "list"), 0.25), runs)
    with tempfile.TemporaryDirectory() as place:
        board, sweep = Path(place) / "board", Path(place) / "sweep"
        report_board(board, of_board, runs)
        command = fill_sweep(sweep, cells)
        report(Measure(f"no-op rerun of {cells} cells", command, 0.5, units=cells), 1)
        report_ending(Path(place) / "ending", beside, runs)
    family = (PYTHON, "-c", FAMILY)
    cell = (PYTHON, "-c", f"{FAMILY}; import latentbench.cells.cell")
    report(Measure("imports of a cell, to those of its family", cell, 1.3, family), runs)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser("python -m perf.startup", description=__doc__)
    parser.add_argument("--cells", type=count, default=1000)
    parser.add_argument("--records", type=count, default=10_000)
    parser.add_argument("--beside", type=count, default=400)
    parser.add_argument("--runs", type=count, default=5)
    given = parser.parse_args()
    return answered(lambda: run(given.cells, given.records, given.beside, given.runs))


if __name__ == "__main__":
    sys.exit(main())
