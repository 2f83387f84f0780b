"""Between Hydra and cells: one job of a sweep is one cell."""

import copy
import inspect
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from latentbench.cells.progress import display
from latentbench.errors import BadInput

NOTE = "cell"  # file in a job's folder that names its cell


def run_job(config: DictConfig, hydra: Any) -> str:
    """Compute the cell of one Hydra job, tell the tracker, and return the cell's id."""
    from latentbench.cells.cell import cells_folder, check_places, results_folder, run_cell
    from latentbench.cells.identity import GROUPS
    from latentbench.reports.tracking import track

    try:
        check_places(config)
    except BadInput as error:
        raise HydraException(str(error)) from None  # the command is wrong, not a cell
    names = {group: str(hydra.runtime.choices[group]) for group in GROUPS}
    settings = [text for text in hydra.overrides.task if _changes_a_part(text)]
    config, settings = without_foreign(config, settings)
    record, new = run_cell(config, names, settings)
    folder = cells_folder(config) / record.id
    if new:
        track(config.tracker, folder, results_folder(config))
    display.finished(record, f"{sum(record.seconds.values()):.0f} s" if new else "(was there)")
    (Path(hydra.runtime.output_dir) / NOTE).write_text(str(folder))
    return record.id


def without_foreign(config: DictConfig, settings: list[str]) -> tuple[DictConfig, list[str]]:
    """Take settings off a part that lacks them, where another choice of its group has them.

    In a sweep over methods, ``++method.images=64`` reaches every method. One that no choice of the
    group has stays, and is refused when the part is built.
    """
    from latentbench.cells.catalogue import options
    from latentbench.cells.parts import part_class

    config, kept = copy.deepcopy(config), []
    for text in settings:
        group, name = text.lstrip("+").split("=", 1)[0].split(".", 2)[:2]
        part = config[group]
        foreign = text.startswith("++") and "_target_" in part and not _has(part_class(part), name)
        if foreign and any(_has(option.cls, name) for option in options(group).values()):
            with open_dict(part):
                part.pop(name, None)
        else:
            kept.append(text.lstrip("+"))  # as labels and commands show it
    return config, kept


def _has(cls: type[Any], name: str) -> bool:
    return name in inspect.signature(cls).parameters


def _changes_a_part(text: str) -> bool:
    key = text.split("=", 1)[0].lstrip("+~")
    return "." in key and key.split(".")[0] in ("benchmark", "method", "model", "dataset", "metric")
