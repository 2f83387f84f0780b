"""Runs cells of the plug-in package `acme` in this process: tiny parts, no diffusers."""

import sys
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig

PACKAGE = Path(__file__).resolve().parent / "plugin_package"
NAMES = {"benchmark": "acme", "method": "acme", "model": "acme", "dataset": "acme"}

sys.path.append(str(PACKAGE))


def composed(results: Path, *overrides: str) -> DictConfig:
    """Return the config of an acme cell."""
    from latentbench import plugins

    choices = [f"{group}={name}" for group, name in NAMES.items()]
    places = [f"results.dir={results}", f"results.cache={results}/cache", "tracker=none"]
    runtime = ["runtime.batch_size=4", "runtime.threads=1", "runtime.device=cpu"]
    with plugins.conf():
        return compose("config", [*choices, *places, *runtime, *overrides])


def run(results: Path, *overrides: str):
    """Run an acme cell and return its record, and whether it was made just now."""
    from latentbench.cells.cell import run_cell

    return run_cell(composed(results, *overrides), NAMES)
