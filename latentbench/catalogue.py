"""What there is to choose from: the yamls in conf/ and in plug-ins, with their classes."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from latentbench import plugins
from latentbench.environment import ROOT

GROUPS = ("method", "model", "dataset", "metric", "benchmark")


@dataclass(frozen=True)
class Option:
    """One yaml of a group.

    Args:
        name: what a user types.
        cls: the class of its `_target_`.
        config: its settings, `_target_` left out; unset ones (``???``) are None.
    """

    name: str
    cls: type[Any]
    config: Mapping[str, Any]


@functools.cache
def options(group: str) -> Mapping[str, Option]:
    """Return every choice of a group by name, without loading a weight."""
    plugins.register()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        names = loader.get_group_options(group)
        return {name: _option(group, name) for name in sorted(names)}


def _option(group: str, name: str) -> Option:
    choice = f"metric=[{name}]" if group == "metric" else f"{group}={name}"
    config = compose("config", [choice])[group]
    return _read(name, config[name] if group == "metric" else config)


def _read(name: str, config: DictConfig) -> Option:
    given = {key: None if OmegaConf.is_missing(config, key) else config[key] for key in config}
    values = {str(k): v for k, v in given.items()}
    return Option(name, get_class(values.pop("_target_")), values)
