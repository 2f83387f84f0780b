"""How long a wrong value takes from the command to its message, and that it gets one.

    python -m perf.time_to_message [--every 1] [--groups method benchmark]

Gives every setting of every yaml that a command can choose one value that its annotation refuses,
each by a command of its own, one after the other. A command is right when it exits with 2, prints
one line and no traceback, and leaves no folder behind. Shown are the median and the largest wall
time, and both as a multiple of `python -c pass` at the same moments: other processes slow both. CPU
time is what the command itself takes.
"""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latentbench.annotations import fits
from latentbench.cells.catalogue import options
from latentbench.cells.constructors import ELSEWHERE, of_source
from latentbench.command import answered, count

ROOT = Path(__file__).resolve().parents[1]
GROUPS = ("method", "model", "dataset", "metric", "benchmark")
VALUES = {"nan": math.nan, "-1": -1, "1.5": 1.5, "true": True, "soon": "soon", "[one]": ["one"],
          "{a: 1}": {"a": 1}}  # as typed: as read  # fmt: skip
BASE = 5  # commands between two of `python -c pass`


@dataclass(frozen=True)
class Trial:
    """One wrong command, and what its answer must name."""

    words: tuple[str, ...]
    setting: str


def trials(groups: list[str]) -> Iterator[Trial]:
    """Yield a wrong command for each setting; kinds of wrong values take turns."""
    turn = 0
    for group in groups:
        for name, option in options(group).items():
            for setting, parameter in (of_source(option.target) or {}).items():
                wrong = [t for t, v in VALUES.items() if not fits(v, parameter.annotation)]
                if setting in ELSEWHERE or not wrong:
                    continue
                key = f"metric.{name}" if group == "metric" else group
                choice = f"metric=[{name}]" if group == "metric" else f"{group}={name}"
                unset = group == "dataset" and setting != "path" and "path" in option.config
                needed = ["dataset.path=x"] if unset else []
                value = wrong[turn % len(wrong)]
                yield Trial((choice, *needed, f"{key}.{setting}={value}"), f"{key}.{setting}")
                turn += 1


def seconds(command: list[str]) -> tuple[float, float, subprocess.CompletedProcess[str]]:
    """Return a command's wall time and CPU time, and how it ended."""
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, os.times()
    own = after.children_user + after.children_system
    return wall, own - before.children_user - before.children_system, done


def fault(trial: Trial, done: subprocess.CompletedProcess[str], results: Path) -> str:
    """Return what is wrong with an answer, or an empty string."""
    if done.returncode != 2:
        return f"exit code {done.returncode}"
    if "Traceback" in done.stderr or done.stderr.count("\n") != 1:
        return f"{done.stderr.count(chr(10))} lines"
    if trial.setting not in done.stderr:
        return "does not name the setting"
    return "leaves a folder behind" if results.exists() else ""


def run(groups: list[str], every: int) -> int:
    """Run the commands and print the times; return the exit code."""
    taken: list[float] = []
    own: list[float] = []
    bare: list[float] = []
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        places = [f"results.dir={results}", "results.cache=null"]
        for k, trial in enumerate([*trials(groups)][::every]):
            if k % BASE == 0:
                bare.append(seconds([sys.executable, "-c", "pass"])[0])
            command = [sys.executable, "runner.py", *trial.words, *places]
            if k == 0:
                seconds(command)  # fills the disk's cache
            wall, cpu, done = seconds(command)
            taken.append(wall)
            own.append(cpu)
            if why := fault(trial, done, results):
                wrong += 1
                print(f"{' '.join(trial.words)}: {why}: {done.stderr[-300:]}", flush=True)
    middle, largest, base = statistics.median(taken), max(taken), statistics.median(bare)
    print(f"{len(taken)} wrong commands, {wrong} of them without a proper answer")
    print(f"median {middle:.2f} s ({middle / base:.0f} x `python -c pass`, {base:.3f} s), "
          f"largest {largest:.2f} s ({largest / base:.0f} x)")  # fmt: skip
    print(f"CPU time: median {statistics.median(own):.2f} s, largest {max(own):.2f} s")
    return int(wrong > 0)


def main() -> int:
    parser = argparse.ArgumentParser("python -m perf.time_to_message", description=__doc__)
    parser.add_argument("--every", type=count, default=1, help="only every so many-th setting")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    arguments = parser.parse_args()
    return answered(lambda: run(arguments.groups, arguments.every))


if __name__ == "__main__":
    sys.exit(main())
