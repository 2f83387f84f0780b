"""Loading the parts of a cell; models stay loaded from one cell to the next."""

from functools import lru_cache
from typing import Any

import torch
from omegaconf import OmegaConf

from latentbench.benchmark import Bench
from latentbench.cache import Cache
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.cells.parts import Part
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
    editor = CheckedEditor(cell.editor)
    wanted = {"model": cell.parts["model"], **cell.others}
    loaded = {name: _loaded(cell, part) for name, part in wanted.items()}
    model = loaded["model"]
    named: dict[str, dict[str, Any]] = {"method": {}, "benchmark": {}}
    for name in cell.others:
        group, _, setting = name.partition(".")
        named[group][setting] = loaded[name]
    found = (getattr(part, "evaluations", None) for part in loaded.values())
    counters = {id(own): own for own in found if own is not None}

    def done() -> tuple[int, int]:
        own = counters.values()
        return sum(e.forward for e in own), sum(e.backward for e in own)

    dataset, streams = cell.dataset, Streams(cell.seed)
    size = cell.parts["dataset"].given.get("size", model.image_size)
    if size is None:
        dataset = cell.parts["dataset"].build(size=model.image_size)
    elif size != model.image_size:
        raise BadInput(
            f"dataset.size is {size}, and the model's images have {model.image_size} pixels a "
            f"side; leave dataset.size out, or take a model of that size"
        )
    cache = Cache(cell.places.cache, done)
    fitting = Fitting(cell.store.folder / "fit", report=display.step, cell=cell.id)
    cell.editor.attach(model, streams, cache, named["method"], fitting)
    cell.editor.card = cell.card
    return Bench(
        editor,
        model,
        dataset,
        streams,
        cache,
        cell.device,
        cell.batch_size,
        named["benchmark"],
        cache.beside(cell.store.folder / "kept", cell.id),
    )


def _loaded(cell: Cell, part: Part) -> Any:
    """Return a part that holds weights, loaded; another method comes as it is."""
    if issubclass(part.cls, Editor):
        return part.build()
    found = hot_part(OmegaConf.to_yaml(part.given), str(cell.device), cell.runtime.execution)
    as_if_fresh(cell.runtime.execution, found)
    return found


@lru_cache(maxsize=4)
def hot_part(config: str, device: str, execution: Execution) -> Any:
    """Load a model, a scorer or a classifier, or return what an earlier cell has loaded."""
    chosen: Any = OmegaConf.create(config)
    part = Part.of(chosen)
    is_model = issubclass(part.cls, LatentModel)
    loaded = part.build(device="cpu" if is_model and execution.offload else device)
    return apply(execution, loaded, torch.device(device)) if is_model else loaded
