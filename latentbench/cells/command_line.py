"""What a command line says, without loading anything heavy: wrong names, number of cells."""

import datetime
import math
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from latentbench import plugins
from latentbench.errors import WrongCommand, unknown

RUN = "LATENTBENCH_RUN"  # variable that names this command's folder of notes, for its workers too
REFUSALS = (HydraException, OmegaConfBaseException, yaml.YAMLError, WrongCommand, OSError)


@dataclass
class Progress:
    """How far this command has come.

    Args:
        started: the config that it was started with; None before, and where it runs no cell.
        begun: whether a cell was begun.
    """

    started: DictConfig | None = None
    begun: bool = False


progress = Progress()


def name_run() -> None:
    """Give this command a folder of its own, also beside one that is started in the same second."""
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    os.environ[RUN] = f"{now}_{secrets.token_hex(4)}"


def count_cells(hydra: DictConfig) -> int:
    """Return how many cells a sweep has: the product of its choices."""
    given = {text.split("=", 1)[0]: text for text in hydra.overrides.task}
    params = hydra.sweeper.get("params") or {}
    lines = {str(key): f"{key}={value}" for key, value in params.items()} | given
    parsed = OverridesParser.create().parse_overrides(list(lines.values()))
    return math.prod(len(list(o.sweep_string_iterator())) for o in parsed if o.is_sweep_override())


def explain(error: Exception, words: Sequence[str] = tuple(sys.argv[1:])) -> str:
    """Return a wrong command's error in a line or two: what came, near matches, what there is."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, name = str(error.missing_cfg_file).rsplit("/", 1)
        return str(unknown(group, name, error.options))
    setting = re.match(r"Could not override '(.+?)\.?([^.']+)'", str(error))
    if setting is not None:
        return _explain_setting(setting[1], setting[2], words) or str(error)
    causes = [error] if error.__cause__ is None else [error, error.__cause__]
    return ": ".join(str(e).split("\n    full_key")[0].strip() for e in causes)


def _explain_setting(parent: str, name: str, words: Sequence[str]) -> str | None:
    if any(re.match(rf"{parent}=.+,", w) for w in words):
        return (
            f"{parent}.{name} is not a setting that every {parent} has; in a sweep over {parent}, "
            f"write ++{parent}.{name}=..., which gives it to those that have it"
        )
    choices = [w for w in words if re.fullmatch(r"\w+=[\w\[\]-]+", w)]
    with plugins.conf():
        known = OmegaConf.select(compose("config", choices), parent)
    return None if known is None else str(unknown(f"setting of {parent}", name, map(str, known)))
