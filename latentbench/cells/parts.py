"""Building the parts of a cell from their settings."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from latentbench.errors import unknown

ELSEWHERE = ("device",)  # settings that `runtime` gives


def part_class(config: DictConfig) -> type[Any]:
    """Return the class of a part, without building it."""
    return get_class(config._target_)


def build(config: DictConfig, **extra: Any) -> Any:
    """Build a part from its settings.

    Raises:
        BadInput: a setting that its class does not know; the message lists those there are. What
            the class itself raises comes through as it is.
    """
    known = inspect.signature(part_class(config)).parameters
    for name in [*config, *extra]:
        if name not in known and not str(name).startswith("_"):
            raise unknown(f"setting of {part_class(config).__name__}", str(name), known)
    try:
        return instantiate(config, _convert_="all", **extra)
    except InstantiationException as error:  # Hydra's words around the cause tell nothing more
        raise error.__cause__ or error from None


def settings(config: DictConfig) -> dict[str, Any]:
    """Return a part's settings as JSON values, with its class's defaults filled in."""
    given: Any = OmegaConf.to_container(config, resolve=True)
    parameters = inspect.signature(part_class(config)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    merged = {**defaults, **given}
    return {name: _plain(value) for name, value in merged.items() if name not in ELSEWHERE}


def _plain(value: Any) -> Any:
    """Return a setting as a JSON value: numbers that are not finite in words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
