"""Command lines in processes of their own, forked from one that has imported torch already.

A command starts in milliseconds instead of the seconds that torch and diffusers take to import.
`python runner.py` itself is run by the tests that are about a fresh interpreter.
"""

import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tests" / "plugin_package"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "diffusers", "transformers", "torchmetrics", "hydra"])


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """`python runner.py WORDS`, started.

    Args:
        words: what follows `runner.py`.
        output: folder of the files that take what it prints.
        variables: added to the environment.
    """

    def __init__(self, words: list[str], output: Path, variables: dict[str, str]) -> None:
        output.mkdir(parents=True, exist_ok=True)
        self.out, self.err = output / "stdout", output / "stderr"
        self.process = FORKS.Process(target=_run, args=(words, self.out, self.err, variables))
        self.process.start()

    def wait(self, seconds: float = 900) -> Done:
        """Return how it ended."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"still running after {seconds} s: {self.err.read_text()}")
        return Done(self.process.exitcode, self.out.read_text(), self.err.read_text())

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process.exitcode is None, f"ended before it was killed: {self.err.read_text()}"
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def running(self) -> bool:
        """Return whether it has not ended yet."""
        return self.process.exitcode is None


def _run(words: list[str], out: Path, err: Path, variables: dict[str, str]) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(variables)
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(PACKAGE)]
    sys.argv = ["runner.py", *words]
    runpy.run_path("runner.py", run_name="__main__")


# ---------------------------------------------------------------- commands on acme's parts

ACME = ("benchmark=acme", "dataset=acme", "tracker=none")
NUMBERS = count()


def words_of(results: Path, *words: str) -> list[str]:
    places = [f"results.dir={results}", f"results.cache={results}/cache"]
    runtime = ["runtime.batch_size=4", "runtime.threads=1", "runtime.device=cpu"]
    many = ["-m"] if "-m" in words else []
    rest = [word for word in words if word != "-m"]
    return [*many, *places, *runtime, *rest]


def environment(log: Path | None = None) -> dict[str, str]:
    extra = {"COLUMNS": "200"}
    return extra | ({} if log is None else {"ACME_LOG": str(log)})


def start(results: Path, *words: str, log: Path | None = None) -> Command:
    output = results.parent / f"{results.name} output {next(NUMBERS)}"
    return Command(words_of(results, *words), output, environment(log))


def run(results: Path, *words: str, log: Path | None = None) -> Done:
    return start(results, *words, log=log).wait()


def in_a_fresh_interpreter(*words: str):
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | environment() | {"PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def cells(results: Path) -> dict[str, bytes]:
    paths = sorted((results / "cells").glob("*/record.json"))
    return {path.parent.name: path.read_bytes() for path in paths}


def scores(results: Path) -> dict[str, str]:
    found = {name: json.loads(body) for name, body in cells(results).items()}
    return {name: json.dumps(record["scores"]) for name, record in found.items()}
