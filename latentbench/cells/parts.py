"""Building the parts of a cell from their settings."""

import copy
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from latentbench.annotations import as_annotated
from latentbench.cells.constructors import ELSEWHERE, FACTS, of_class, problems
from latentbench.errors import BadInput
from latentbench.records import in_words


def part_class(config: DictConfig) -> type[Any]:
    """Return the class of a part, without building it."""
    return get_class(config._target_)


def build(config: DictConfig, **extra: Any) -> Any:
    """Build a part from its settings, all of which are checked first.

    Args:
        config: the settings, with the class's name as `_target_`.
        extra: settings that others decide.

    Raises:
        BadInput: settings that its class does not know, that are missing, or that its annotations
            refuse; one message names them all. What the class itself raises comes through as it is.
    """
    cls = part_class(config)
    given: Any = OmegaConf.to_container(config, resolve=True)
    checked = given | {name: value for name, value in extra.items() if name not in ELSEWHERE}
    found = problems(str(config._get_full_key(None)) or cls.__name__, checked, of_class(cls))
    if found:
        raise BadInput("; ".join(found))
    try:
        return instantiate(_without_facts(config), _convert_="all", **extra)
    except InstantiationException as error:  # Hydra's words around the cause tell nothing more
        raise error.__cause__ or error from None


def settings(config: DictConfig) -> dict[str, Any]:
    """Return a part's settings as JSON values, with its class's defaults filled in."""
    given: Any = OmegaConf.to_container(_without_facts(config), resolve=True)
    parameters = of_class(part_class(config))
    defaults = {p.name: p.default for p in parameters.values() if p.default is not p.empty}
    types = {name: p.annotation for name, p in parameters.items()}
    merged = {k: as_annotated(v, types.get(k, Any)) for k, v in {**defaults, **given}.items()}
    return {name: in_words(value) for name, value in merged.items() if name not in ELSEWHERE}


def _without_facts(config: DictConfig) -> DictConfig:
    """Return a part's settings without what its yaml says to launchers alone."""
    facts = [name for name in FACTS if name in config and name not in of_class(part_class(config))]
    if facts:
        config = copy.deepcopy(config)
        with open_dict(config):
            for name in facts:
                del config[name]
    return config
