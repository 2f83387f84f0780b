"""Computing a cell again from its record alone: with this code, or with the code of its commit."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentbench import plugins, records
from latentbench.cells.environment import sha256
from latentbench.cells.progress import display
from latentbench.config import RunConfig
from latentbench.errors import BadInput, LatentbenchError
from latentbench.paths import CHECKOUT
from latentbench.records import GROUPS, Record, Status
from latentbench.reports.boards import Found
from latentbench.reports.finding import damaged, find
from latentbench.reports.reproduce import Reproduction, compare

LOCK = "uv.lock"
OTHERS = ("UV_PROJECT_ENVIRONMENT", "VIRTUAL_ENV")  # would make uv install into another environment
STDERR = 2  # where the output of other programs goes: stdout is for the answer


def asked(question: str, results: Path, sample: int | None = None, seed: int = 0) -> list[Found]:
    """Return the cells that are to be computed again: those with figures.

    Args:
        question: what names them; see `latentbench.reports.finding.find`.
        results: folder of the records.
        sample: how many of them to draw; None: all.
        seed: of the draw.

    Raises:
        BadInput: none is called so, none has figures, or a record among them is damaged.
    """
    found = find(question, results)
    if len(found) == 1 and found[0][1].status is not Status.OK:
        record = found[0][1]
        raise BadInput(f"cell {record.id} has no figure: it {record.status}: {record.reason}")
    if len(found) > 1 and (faults := damaged(found[0][0].parents[1])):
        raise BadInput(f"{len(faults)} records cannot be used: {'; '.join(faults)}")
    found = [pair for pair in found if pair[1].status is Status.OK]
    if not found:
        raise BadInput(f"no cell that {question} names has a figure; latentbench show says why")
    if sample is None or sample >= len(found):
        return found
    return [found[k] for k in sorted(random.Random(seed).sample(range(len(found)), sample))]


def reproductions(found: Sequence[Found], at_commit: bool) -> Iterator[Reproduction]:
    """Compute cells again, one after the other, and compare each with its record.

    Args:
        found: the cells.
        at_commit: by the code of the commit that each record names; otherwise by this code.
    """
    if not at_commit:
        yield from (_reproduction(pair, computed_again) for pair in found)
        return
    for commit, each in groupby(sorted(found, key=_commit), _commit):
        same = list(each)
        try:
            with checkout_of(commit) as folder:
                for pair in same:
                    yield _reproduction(pair, lambda *a, at=folder: computed_at(at, *a))
        except BadInput as error:  # there is no such commit: none of its cells was begun
            yield from (Reproduction(record, why_not=str(error)) for _, record in same)


def _reproduction(pair: Found, compute: Callable[[Record, Path], Found]) -> Reproduction:
    _, record = pair
    display.tell(f"computing {record.title} ({sum(record.seconds.values()):.0f} s in its record)")
    with TemporaryDirectory(prefix="latentbench-") as results:
        try:
            return compare(pair, compute(record, Path(results)))
        except LatentbenchError as error:
            return Reproduction(record, why_not=str(error))


def _commit(pair: Found) -> str:
    return str(pair[1].environment.get("git_commit") or "")


def computed_again(record: Record, results: Path) -> Found:
    """Return folder and record of a cell computed again, with no cache, by this code.

    Settings, seed, threads and batch size are the record's; another commit's defaults do not
    matter, since a record holds every setting.

    Args:
        record: the record.
        results: an empty folder.
    """
    from latentbench.cells.cell import run_cell  # late: imports torch

    with plugins.conf():
        again, _ = run_cell(config_of(record, results), record.names, record.overrides)
    return results / "cells" / again.id, again


def config_of(record: Record, results: Path) -> DictConfig:
    """Return the config that a record was made from, but for where things lie.

    Args:
        record: the record.
        results: folder of the new results.

    Raises:
        BadInput: the record holds settings that this code does not know.
    """
    parts: dict[str, Any] = {name: record.config[name] for name in (*GROUPS, "metric", "seed")}
    weights = os.environ.get("LATENTBENCH_WEIGHTS")  # as conf/config.yaml has it
    where = {"dir": str(results), "cache": None, "weights_dir": weights, "images": 0}
    runtime = {**record.runtime, "device": "cpu" if record.device == "cpu" else "auto"}
    given = parts | {"runtime": runtime, "results": where}
    try:
        config: Any = OmegaConf.merge(OmegaConf.structured(RunConfig), given)
    except OmegaConfBaseException as error:
        raise BadInput(f"the record's settings are not of this code: {error}") from error
    return config


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """Give the code of a commit in a folder of its own, and remove it at the end.

    Raises:
        BadInput: this checkout has no such commit.
    """
    with TemporaryDirectory(prefix="latentbench-") as parent:
        folder = Path(parent) / "checkout"
        try:
            _git("worktree", "add", "--detach", str(folder), commit)
        except subprocess.CalledProcessError as error:
            why = (error.stderr.strip() or "no commit is named").splitlines()[-1]
            raise BadInput(
                f"commit {commit!r} cannot be checked out ({why}); try git fetch"
            ) from error
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def computed_at(checkout: Path, record: Record, results: Path) -> Found:
    """Return folder and record of a cell computed again by the code of a checkout.

    Where its lock file is another than this checkout's, its packages are installed first.

    Args:
        checkout: folder of the code.
        record: the record.
        results: an empty folder.

    Raises:
        LatentbenchError: the packages cannot be installed, or the command made no record.
    """
    python = _python(checkout)
    metrics = f"metric=[{','.join(record.config['metric'])}]"
    where = (f"results.dir={results}", "results.cache=null", "results.images=0", "tracker=none")
    words = [str(python), "runner.py", *record.words(), metrics, *where]
    path = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, cwd=checkout, env=variables, stdout=STDERR, check=False)
    found = records.list_records(results)
    if len(found) != 1:
        raise LatentbenchError(
            f"the code of the commit made no record (exit code {done.returncode}); it was asked: "
            f"{' '.join(words[1:])}"
        )
    return found[0]


def _python(checkout: Path) -> Path:
    """Return the Python that has the packages of a checkout's lock file."""
    if sha256(checkout / LOCK) == sha256(CHECKOUT / LOCK):
        return Path(sys.executable)
    own = CHECKOUT / ".uv" / "bin" / "uv"
    uv = shutil.which("uv") or (str(own) if own.is_file() else None)
    if uv is None:
        raise LatentbenchError(f"the commit's {LOCK} is another, and there is no uv to install it")
    words = [uv, "sync", "--frozen", "--python", sys.executable]
    given = {name: value for name, value in os.environ.items() if name not in OTHERS}
    done = subprocess.run(words, cwd=checkout, env=given, stdout=STDERR, check=False)
    if done.returncode:
        raise LatentbenchError(f"the packages of the commit's {LOCK} could not be installed")
    return checkout / ".venv" / "bin" / "python"


def _git(*words: str) -> None:
    subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True, check=True)
