"""Loading the parts of a cell; models stay loaded from one cell to the next."""

from functools import lru_cache
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from latentbench.benchmark import Bench
from latentbench.cache import Cache
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.cells.others import named_by
from latentbench.cells.parts import build, part_class
from latentbench.cells.plan import Cell
from latentbench.cells.progress import display
from latentbench.config import Execution
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.model import LatentModel
from latentbench.models.execution import apply, as_if_fresh
from latentbench.streams import Streams


def load(cell: Cell) -> Bench:
    """Load the models, give the data set its size, attach the editor.

    Raises:
        BadInput: the data set has another image size than the model.
    """
    display.phase("loading the model")
    model = _hot(cell, cell.config.model)
    parts = {group: _other_parts(cell, group) for group in ("method", "benchmark")}
    every = [model, *parts["method"].values(), *parts["benchmark"].values()]
    counters = {id(e): e for one in every if (e := getattr(one, "evaluations", None)) is not None}

    def done() -> tuple[int, int]:
        own = counters.values()
        return sum(e.forward for e in own), sum(e.backward for e in own)

    dataset, streams = cell.dataset, Streams(cell.config.seed)
    size = cell.config.dataset.get("size", model.image_size)
    if size is None:
        dataset = build(cell.config.dataset, size=model.image_size)
    elif size != model.image_size:
        raise BadInput(
            f"dataset.size is {size}, and the model's images have {model.image_size} pixels a "
            f"side; leave dataset.size out, or take a model of that size"
        )
    cache = Cache(cell.places.cache, done)
    fitting = Fitting(cell.store.folder / "fit", report=display.step, cell=cell.id)
    cell.editor.attach(model, streams, cache, parts["method"], fitting)
    return Bench(
        CheckedEditor(cell.editor),
        model,
        dataset,
        streams,
        cache,
        cell.device,
        cell.batch_size,
        parts["benchmark"],
        cache.beside(cell.store.folder / "kept", cell.id),
    )


def _other_parts(cell: Cell, group: str) -> dict[str, Any]:
    """Return the loaded parts that the settings of the method or of the benchmark name."""
    named = named_by(part_class(cell.config[group]), cell.settings[group])
    return {
        name: other.build()
        if issubclass(other.cls, Editor)
        else _hot(cell, OmegaConf.create({"_target_": other.target, **other.config}))
        for name, other in named.items()
    }


def _hot(cell: Cell, part: DictConfig) -> Any:
    execution = Execution(**cell.config.runtime.execution)
    found = hot_part(OmegaConf.to_yaml(part, resolve=True), str(cell.device), execution)
    as_if_fresh(execution, found)
    return found


@lru_cache(maxsize=4)
def hot_part(config: str, device: str, execution: Execution) -> Any:
    """Load a model, a scorer or a classifier, or return what an earlier cell has loaded."""
    chosen: Any = OmegaConf.create(config)
    is_model = issubclass(part_class(chosen), LatentModel)
    part = build(chosen, device="cpu" if is_model and execution.offload else device)
    return apply(execution, part, torch.device(device)) if is_model else part
