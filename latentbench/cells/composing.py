"""The configs of all cells of a command, put together from parts that are composed once each.

Hydra composes a whole config per cell, which takes minutes for a thousand. The settings of a group
depend on the words about that group alone, so that a sweep over ten models and twenty methods needs
thirty compositions. `tests/unit/cells/test_composing.py` holds the result against Hydra's own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from latentbench.cells.command_line import sweep_lines
from latentbench.cells.words import read_command

GROUPS = ("benchmark", "method", "model", "dataset", "metric", "tracker", "launch")


@dataclass(frozen=True)
class Composed:
    """The config of one cell.

    Args:
        config: as Hydra would compose it.
        names: group -> chosen option.
        words: the words that it was composed from.
    """

    config: DictConfig
    names: dict[str, str]
    words: tuple[str, ...]


def cells_of(arguments: Sequence[str]) -> Iterator[Composed]:
    """Yield the cells of a command in the order in which a sweep has them; within `plugins.conf`.

    Args:
        arguments: the words behind the program's name, checked by `command_line.check`.
    """
    words = [word.text for word in read_command(arguments).words]
    named = [word for word in words if word.startswith("sweep=")]
    hydra = compose("config", named[-1:], return_hydra_config=True).hydra
    parsed = OverridesParser.create().parse_overrides([*sweep_lines(hydra).values(), *words])
    whole = cache(_whole)
    for cell in BasicSweeper.split_arguments(parsed, None)[0]:
        by_root: dict[str, tuple[str, ...]] = {}
        for word in cell:
            by_root[_root(word)] = (*by_root.get(_root(word), ()), word)
        rest = tuple(w for root, own in by_root.items() if root not in GROUPS for w in own)
        config = OmegaConf.masked_copy(whole(rest)[0], ["seed", "runtime", "results"])
        names = {}
        for group in GROUPS:
            own = by_root.get(group, ())
            if group == "metric":  # the benchmark chooses them, unless the user does
                own = (*by_root.get("benchmark", ()), *own)
            part, choices = whole(own)
            names[group] = choices.get(group, "")
            with open_dict(config):
                config[group] = part[group]
        yield Composed(config, names, tuple(cell))


def _whole(words: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """Return the config that some words make of the defaults, and the options that it chose."""
    config = compose("config", list(words), return_hydra_config=True)
    choices: Any = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices


def _root(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].split(".")[0]
