"""The parts of a cell: a class and its settings, read from the config once."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from latentbench.annotations import as_annotated
from latentbench.cells.constructors import ELSEWHERE, FACTS, TARGET, of_class, problems
from latentbench.errors import BadInput
from latentbench.option import Option
from latentbench.records import in_words


@dataclass(frozen=True)
class Part:
    """One part of a cell before it is built.

    Args:
        name: what a user calls it, as in "method" or "metric.psnr".
        cls: its class.
        given: its settings as composed, with interpolations resolved and the class as `_target_`.
    """

    name: str
    cls: type[Any]
    given: Mapping[str, Any]

    @classmethod
    def of(cls, config: DictConfig) -> "Part":
        """Return the part that an entry of a config describes."""
        made = get_class(config._target_)
        given: Any = OmegaConf.to_container(config, resolve=True)
        return cls(str(config._get_full_key(None)) or made.__name__, made, given)

    @classmethod
    def other(cls, option: Option) -> "Part":
        """Return the part that a setting of another part names."""
        return cls(option.cls.__name__, option.cls, {TARGET: option.target, **option.config})

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Its settings as JSON values, with its class's defaults filled in."""
        parameters = of_class(self.cls)
        defaults = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
        types = {name: p.annotation for name, p in parameters.items()}
        merged = {**defaults, **self._without_facts()}
        typed = {name: as_annotated(value, types.get(name, Any)) for name, value in merged.items()}
        return {name: in_words(value) for name, value in typed.items() if name not in ELSEWHERE}

    def build(self, **extra: Any) -> Any:
        """Build it; what its class raises comes through as it is.

        Hydra is asked only where a setting is an object to build: it copies and merges the config
        several times over.

        Args:
            extra: settings that others decide.
        """
        given = self._without_facts()
        if not any(map(_holds_target, given.values())):
            settings = {name: deepcopy(value) for name, value in given.items() if name != TARGET}
            return self.cls(**{**settings, **extra})
        try:
            return instantiate(given, _convert_="all", **extra)
        except InstantiationException as error:  # Hydra's words around the cause tell nothing more
            raise error.__cause__ or error from None

    def _without_facts(self) -> dict[str, Any]:
        """Return what is given, without what a yaml says to launchers alone."""
        takes = of_class(self.cls)
        return {k: v for k, v in self.given.items() if k not in FACTS or k in takes}


def _holds_target(value: Any) -> bool:
    """Return whether a value is, or holds, an object that Hydra is to build."""
    if isinstance(value, Mapping):
        return TARGET in value or any(map(_holds_target, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_target, value))


def check_settings(parts: Iterable[Part]) -> None:
    """Refuse settings before anything is built.

    Raises:
        BadInput: settings that a class does not know, that are missing, or that its annotations
            refuse; one message names all of all parts.
    """
    found = [text for p in parts for text in problems(p.name, p.given, of_class(p.cls))]
    if found:
        raise BadInput("; ".join(found))
