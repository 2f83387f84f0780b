"""What is refused or skipped before any weight is read."""

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from latentbench.cells.compatibility import Parts, reason_to_skip
from latentbench.cells.parts import part_class
from latentbench.cells.places import Places
from latentbench.cells.plan import Cell
from latentbench.config import faults
from latentbench.errors import BadInput


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
    Places.of(config)
    device = str(config.runtime.device)
    if device.startswith("cuda"):
        number, there = int(device.partition(":")[2] or 0), torch.cuda.device_count()
        if number >= there:
            raise BadInput(
                f"runtime.device={device} is not there: torch {torch.__version__} sees {there} "
                f"GPUs; write runtime.device=cpu, or auto for a GPU where there is one"
            )


def why_skipped(cell: Cell) -> str | None:
    """Return why its parts do not go together or cannot be scored, or None where they do."""
    own = cell.settings
    parts = Parts(
        type(cell.editor),
        own["method"],
        part_class(cell.config.model),
        cell.dataset,
        cell.benchmark,
        own["benchmark"],
    )
    return reason_to_skip(parts) or _unscored(cell)


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
    own, steps = cell.settings["model"], getattr(editor, "steps", None)
    part_class(cell.config.model).check(own, steps)
    strengths = [s for s in benchmark.curve(editor.max_strength) if s]
    editor.check(data, steps or own.get("steps"), strengths)


def listed(reasons: Mapping[str, str | None]) -> str:
    """Return reasons by name in one line."""
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _unscored(cell: Cell) -> str | None:
    """Return why no metric can give a figure, or None where one can."""
    folder, data = cell.places.weights, cell.dataset
    reasons = {name: m.missing(folder) or m.unfed(data) for name, m in cell.metrics.items()}
    return None if None in reasons.values() else f"no metric gives a figure: {listed(reasons)}"
