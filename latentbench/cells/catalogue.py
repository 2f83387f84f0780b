"""What there is to choose from: the yamls in conf/ and in plug-ins, with their classes."""

import functools
from collections.abc import Mapping
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from latentbench import plugins
from latentbench.errors import unknown
from latentbench.option import Option


@functools.cache
def options(group: str) -> Mapping[str, Option]:
    """Return every choice of a group by name, without loading a weight."""
    with plugins.conf():
        names = sorted(GlobalHydra.instance().config_loader().get_group_options(group))
        choices = [f"+{group}@{group}.{name}={name}" for name in names]  # each under its own name
        if group == "metric":  # whose yamls say so themselves
            choices = [f"metric=[{','.join(names)}]"]
        found = compose(plugins.EMPTY, choices)[group]  # at once: composing is slow
    alone = {name: OmegaConf.create({group: found[name]})[group] for name in names}  # as in a cell
    return {name: _read(name, config) for name, config in alone.items()}


def option(group: str, name: str) -> Option:
    """Return one choice of a group.

    Raises:
        BadInput: no such choice; the message lists those there are.
    """
    known = options(group)
    if name not in known:
        raise unknown(group, name, known)
    return known[name]


def _read(name: str, config: DictConfig) -> Option:
    given: Any = OmegaConf.to_container(config, resolve=True)
    values = {str(k): None if v == "???" else v for k, v in given.items()}
    return Option(name, get_class(str(values.pop("_target_"))), values)
