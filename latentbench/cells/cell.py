"""The life of a cell: plan, check, load, fit, run in batches, score, record.

A cell is benchmark x method x model x dataset x seed. It goes in as a composed config and comes
out as a record; everything shown later is made of records. Read `run_cell` first, then `compute`.
"""

import datetime
import os
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from latentbench import records
from latentbench.benchmark import Bench, Benchmark, Work
from latentbench.cache import Cache, content_hash
from latentbench.cells.batch_runner import BatchRunner, is_out_of_memory, work_list
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.cells.compatibility import Parts, reason_to_skip
from latentbench.cells.costs import Cost
from latentbench.cells.environment import environment, peak_memory
from latentbench.cells.identity import identity
from latentbench.cells.lock import NAME as LOCK
from latentbench.cells.lock import Busy, held
from latentbench.cells.others import named_by
from latentbench.cells.parts import build, part_class, settings
from latentbench.cells.progress import display
from latentbench.cells.scoring import CHUNK, Scorer, refuse_clashes
from latentbench.cells.working_folder import Finished, Partial, in_order
from latentbench.config import Execution, Order, Overwrite, faults
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, Incompatible, LatentbenchError, MissingWeights
from latentbench.fitting import Fitting
from latentbench.metric import Metric, Surroundings
from latentbench.model import DiffusionModel, LatentModel
from latentbench.models.execution import apply, use_attention
from latentbench.paths import user_path
from latentbench.records import Record, Status
from latentbench.reports.pictures import Pictures
from latentbench.streams import Streams
from latentbench.types import Edit
from latentbench.zoo.judges import load_judge

PARTIAL = "partial"  # folder of unfinished work, in the cell's own
OWN_FIELDS = ("config", "versions", "weights")  # of an identity, that a record has fields for
MAY_PASS = (OSError, ImportError, MemoryError, MissingWeights, SystemExit)


@dataclass(frozen=True)
class Cell:
    """What is known of a cell before any weight is read.

    Args:
        config: the composed config.
        editor: the method, not attached yet.
        benchmark: the protocol.
        dataset: the images; of no size yet where the model decides it.
        metrics: metrics by name, not prepared yet.
        identity: everything that decides the scores; the id is its hash.
        blank: a record with id, names and settings filled in.
    """

    config: DictConfig
    editor: Editor
    benchmark: Benchmark
    dataset: Dataset
    metrics: Mapping[str, Metric]
    identity: Mapping[str, Any]
    blank: Record

    @property
    def folder(self) -> Path:
        """Where its record and its unfinished work lie."""
        return cells_folder(self.config) / self.blank.id

    @property
    def device(self) -> torch.device:
        """Where its networks run."""
        wanted, gpu = self.config.runtime.device, torch.cuda.is_available()
        return torch.device(("cuda" if gpu else "cpu") if wanted == "auto" else wanted)

    @property
    def weights_dir(self) -> Path | None:
        """Where published weights lie."""
        return place(self.config, "weights_dir")


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
        overrides: the command line's settings beside the choices.
        wait: whether to wait where another process computes this cell.

    Raises:
        BadInput: `seed`, `runtime` or `results` are wrong.
        Busy: another process computes it, and `wait` is false.
    """
    check_surroundings(config)
    blank = Record("", Status.FAILED, dict(names), config.seed, {}, overrides=tuple(overrides))
    try:
        cell = plan(config, blank)
        reason = reason_to_skip(_parts(cell)) or _unscored(cell)
        if reason is None:
            check(cell)
        old = records.read(cell.folder)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a part may raise what it likes
        return _save(_failed(blank, config, error), config)
    if reason is not None:
        skipped = replace(cell.blank, status=Status.SKIPPED, reason=reason)
        if old is not None and (old.status, old.reason) == (skipped.status, reason):
            return old, False
        return _save(skipped, config)
    if not is_due(old, config):
        _tidy(cell, old)
        return old or _not_computed(cell.blank), False
    with held(cell.folder, wait, display.tell):
        old = records.read(cell.folder)  # another process may have made it meanwhile
        if not is_due(old, config):
            return old or _not_computed(cell.blank), False
        return _computed(cell)


def _tidy(cell: Cell, old: Record | None) -> None:
    """Remove what a process left that was killed right after it had written the record."""
    left = any((cell.folder / name).exists() for name in (PARTIAL, LOCK))
    if left and old is not None:
        with suppress(Busy), held(cell.folder, False, lambda words: None):
            _partial(cell).clear(old.status is Status.OK)


def _computed(cell: Cell) -> tuple[Record, bool]:
    """Compute a cell and write its record, whatever happens."""
    try:
        record = compute(cell)
    except KeyboardInterrupt:
        raise
    except Incompatible as error:  # what no class could tell before loading
        record = replace(cell.blank, status=Status.SKIPPED, reason=str(error))
    except BaseException as error:
        hot_part.cache_clear()  # what the error left behind must not reach the next cell
        record = _failed(cell.blank, cell.config, error)
    if record.status is Status.FAILED:
        old = records.read(cell.folder)
        if old is not None and old.status is Status.OK and not is_due(old, cell.config):
            return old, False  # made by a process that took over while this one was suspended
    record, new = _save(record, cell.config)
    _partial(cell).clear(record.status is Status.OK)
    return record, new


def _save(record: Record, config: DictConfig) -> tuple[Record, bool]:
    """Write a new record; one that finds no room on disk is reported as failed, not raised."""
    runtime: Any = OmegaConf.to_container(config.runtime, enum_to_str=True)
    record = replace(record, environment=environment(), created=_now(), runtime=runtime)
    folder = cells_folder(config) / record.id
    try:
        return records.write(record, folder), True
    except OSError as error:
        reason = (
            f"the record cannot be written to {folder} ({error.strerror or error}); finished "
            f"batches that are on disk are kept: make room, and run the same command again"
        )
        return replace(record, status=Status.FAILED, reason=reason, may_pass=True), True


def plan(config: DictConfig, blank: Record) -> Cell:
    """Build the light parts and find the id; no weight is read."""
    editor, benchmark, dataset = (build(config[g]) for g in ("method", "benchmark", "dataset"))
    metrics = {str(name): build(entry) for name, entry in config.metric.items()}
    if not metrics:
        raise BadInput(
            "no metric is chosen, so there is nothing to measure; name one: metric=[psnr]"
        )
    refuse_clashes(metrics)
    weights_dir = place(config, "weights_dir")
    on = [n for n, m in metrics.items() if not (m.missing(weights_dir) or m.unfed(dataset))]
    whole = identity(config, dataset, on)
    blank = replace(
        blank,
        id=records.cell_id(whole),
        **{name: whole[name] for name in OWN_FIELDS},
        identity={name: value for name, value in whole.items() if name not in OWN_FIELDS},
        main_score=benchmark.main_score,
    )
    return Cell(config, editor, benchmark, dataset, metrics, whole, blank)


def check(cell: Cell) -> None:
    """Refuse settings that do not fit the data, the model or each other; no weight is read.

    Raises:
        BadInput: says what came, what is allowed and what to do.
    """
    benchmark, editor, data = cell.benchmark, cell.editor, cell.dataset
    if not any(benchmark.count(group, data) for group in benchmark.groups(data)):
        raise BadInput(
            f"{type(benchmark).__name__} has no row on {type(data).__name__}: none of its groups "
            f"has an image there; raise dataset.limit, or take another data set"
        )
    benchmark.check(data)
    own, steps = settings(cell.config.model), getattr(editor, "steps", None)
    part_class(cell.config.model).check(own, steps)
    strengths = [s for s in benchmark.curve(editor.max_strength) if s]
    editor.check(data, steps or own.get("steps"), strengths)


def _unscored(cell: Cell) -> str | None:
    """Return why no metric can give a figure, or None where one can."""
    folder, data = cell.weights_dir, cell.dataset
    reasons = {name: m.missing(folder) or m.unfed(data) for name, m in cell.metrics.items()}
    return None if None in reasons.values() else f"no metric gives a figure: {_listed(reasons)}"


def _listed(reasons: Mapping[str, str | None]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def is_due(old: Record | None, config: DictConfig) -> bool:
    """Return whether a cell is to be computed: by the overwrite policy, and by what there is.

    Settings of `runtime` are no part of the id, so what they decided is computed again under
    others: a failed cell, and one that left out a larger share of samples than is allowed now.
    """
    overwrite, runtime = config.results.overwrite, config.runtime
    if overwrite in (Overwrite.always, Overwrite.never):
        return overwrite is Overwrite.always
    if old is None or old.status is Status.SKIPPED:
        return True
    if old.status is Status.OK:
        return old.failed_share() > runtime.max_failed_share
    now: Any = OmegaConf.to_container(runtime, enum_to_str=True)
    other = old.sealed and {**old.runtime, "fail_fast": runtime.fail_fast} != now
    return overwrite is Overwrite.failed or old.may_pass or other


def compute(cell: Cell) -> Record:
    """Load, fit, run and score; all but the record itself is on disk when this returns."""
    runtime, store = cell.config.runtime, _partial(cell)
    store.clear(cell.config.results.overwrite is Overwrite.always)
    _settle(cell.config.seed, runtime.threads)
    use_attention(runtime.execution.attention)
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
        raise BadInput(f"no metric gave a figure: {_listed(scorer.switched_off | notes)}")
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


def load(cell: Cell) -> Bench:
    """Load the models, give the data set its size, attach the editor."""
    display.phase("loading the model")
    model = _hot(cell, cell.config.model)
    parts = {group: _other_parts(cell, group) for group in ("method", "benchmark")}
    every = [model, *parts["method"].values(), *parts["benchmark"].values()]
    counters = {id(e): e for one in every if (e := getattr(one, "evaluations", None)) is not None}

    def done() -> tuple[int, int]:
        own = counters.values()
        return sum(e.forward for e in own), sum(e.backward for e in own)

    cache = Cache(place(cell.config, "cache"), done)
    dataset, streams = cell.dataset, Streams(cell.config.seed)
    if cell.config.dataset.get("size", 0) is None:
        dataset = build(cell.config.dataset, size=model.image_size)
    fitting = Fitting(cell.folder / PARTIAL / "fit", report=display.step, cell=cell.blank.id)
    cell.editor.attach(model, streams, cache, parts["method"], fitting)
    return Bench(
        CheckedEditor(cell.editor),
        model,
        dataset,
        streams,
        cache,
        cell.device,
        _batch_size(cell),
        parts["benchmark"],
    )


def _other_parts(cell: Cell, group: str) -> dict[str, Any]:
    """Return the loaded parts that the settings of the method or of the benchmark name."""
    part = cell.config[group]
    named = named_by(part_class(part), settings(part))
    return {
        name: other.build()
        if issubclass(other.cls, Editor)
        else _hot(cell, OmegaConf.create({"_target_": other.target, **other.config}))
        for name, other in named.items()
    }


def _hot(cell: Cell, part: DictConfig) -> Any:
    execution = Execution(**cell.config.runtime.execution)
    found = hot_part(OmegaConf.to_yaml(part, resolve=True), str(cell.device), execution)
    if isinstance(found, DiffusionModel):
        found.remove_adapters()  # those that another cell's method has learned
    return found


@lru_cache(maxsize=4)
def hot_part(config: str, device: str, execution: Execution) -> Any:
    """Load a model, a scorer or a classifier, or return what an earlier cell has loaded."""
    chosen: Any = OmegaConf.create(config)
    if not issubclass(part_class(chosen), LatentModel):
        return build(chosen, device=device)
    first = "cpu" if execution.offload else device
    return apply(execution, build(chosen, device=first), torch.device(device))


def fit(cell: Cell, bench: Bench) -> None:
    """Let the method learn, or take what it learned in another cell."""
    editor, edits = cell.editor, cell.benchmark.edits(bench.dataset)
    if type(editor).fit is Editor.fit:
        return
    display.phase("fitting")

    def learn() -> Mapping[str, torch.Tensor]:
        with torch.enable_grad():
            editor.fit(bench.dataset, edits)
        return editor.state()

    editor.load_state(bench.cache.get_or_make("fit", fit_key(cell, bench, edits), learn))


def fit_key(cell: Cell, bench: Bench, edits: Sequence[Edit]) -> str:
    """Return a hash of all that a fit depends on."""
    own = {key: cell.identity["config"][key] for key in ("method", "dataset", "seed")}
    networks = [bench.model, *cell.editor.parts.values()]
    versions = [type(part).version for part in (cell.editor, bench.dataset, *networks)]
    return content_hash(
        [network.fingerprint() for network in networks],
        bench.model.image_size,
        own,
        [(edit.name, edit.attribute, edit.sign, edit.component, edit.words) for edit in edits],
        versions,
        cell.identity["data"],
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
    surroundings = Surroundings(
        bench.dataset, cell.device, bench.cache, load_judge, cell.weights_dir
    )
    scorer = Scorer(cell.metrics, surroundings)
    groups = cell.benchmark.groups(bench.dataset)
    pictures = Pictures(cell.config.results.images, groups)
    for samples in in_order(get, works, groups, CHUNK):
        scorer.update(samples)
        pictures.update(samples)
    return scorer, scorer.finish(cell.folder) | pictures.save(cell.folder)


def cells_folder(config: DictConfig) -> Path:
    """Return the folder that holds one folder per cell."""
    return results_folder(config) / "cells"


def results_folder(config: DictConfig) -> Path:
    """Return the folder of records and leaderboard."""
    return user_path(config.results.dir, "results.dir")


def place(config: DictConfig, name: str) -> Path | None:
    """Return what a path of `results` stands for, seen from the user; None where it is null."""
    given = config.results[name]
    return None if given is None else user_path(given, f"results.{name}")


def check_surroundings(config: DictConfig) -> None:
    """Refuse what is wrong with `seed`, `runtime` or `results`, whatever the cell, before any work.

    Raises:
        BadInput: a value that its type refuses, an empty path, a GPU that is not there.
    """
    typed = OmegaConf.masked_copy(config, ["seed", "runtime", "results"])
    values: Any = OmegaConf.to_container(typed, resolve=True, enum_to_str=True)
    found = list(faults(values))
    if found:
        raise BadInput("; ".join(found))
    for name in ("dir", "cache", "weights_dir"):
        place(config, name)
    device = str(config.runtime.device)
    if device.startswith("cuda"):
        number, there = int(device.partition(":")[2] or 0), torch.cuda.device_count()
        if number >= there:
            raise BadInput(
                f"runtime.device={device} is not there: torch {torch.__version__} sees {there} "
                f"GPUs; write runtime.device=cpu, or auto for a GPU where there is one"
            )


def _partial(cell: Cell) -> Partial:
    return Partial(cell.folder / PARTIAL, cell.blank.id)


def _works(cell: Cell, bench: Bench) -> list[Work]:
    benchmark, data = cell.benchmark, bench.dataset
    counts = {group: benchmark.count(group, data) for group in benchmark.groups(data)}
    backwards = cell.config.runtime.order is Order.reversed
    return work_list(counts, _batch_size(cell), backwards)


def _batch_size(cell: Cell) -> int:
    """Return the images of a call: no more than there are, since a batch is padded to its size."""
    return min(cell.config.runtime.batch_size, cell.benchmark.n)


def _parts(cell: Cell) -> Parts:
    config = cell.config
    return Parts(
        type(cell.editor),
        settings(config.method),
        part_class(config.model),
        cell.dataset,
        cell.benchmark,
        settings(config.benchmark),
    )


def _settle(seed: int, threads: int) -> None:
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


def _failed(blank: Record, config: DictConfig, error: BaseException) -> Record:
    """Return the record of an error; before the id is known, an id of the bare config.

    Raises:
        The error itself where `runtime.fail_fast` asks for it.
    """
    if config.runtime.fail_fast:
        if isinstance(error, Exception):
            raise error
        raise LatentbenchError(_in_a_line(error)) from error  # SystemExit(0) is no success
    bare = records.in_words(
        {group: OmegaConf.to_container(config[group]) for group in (*blank.names, "metric")}
    )
    return replace(
        blank,
        id=blank.id or content_hash(bare, config.seed)[:16],
        config=blank.config or bare,
        reason=_in_a_line(error),
        traceback="".join(traceback.format_exception(error)),
        may_pass=isinstance(error, MAY_PASS) or is_out_of_memory(error),
    )


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {records.in_words(error)}"


def _not_computed(blank: Record) -> Record:
    reason = "no record is there, and results.overwrite=never computes nothing"
    return replace(blank, status=Status.SKIPPED, reason=reason)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
