"""The other parts of a cell: those that a setting of its method or its benchmark names.

A second model, another method, a scorer or a classifier: `Editor.others` and `Benchmark.others`
say which settings name one. They are as much a part of the cell as its first model is: in its
identity, loaded once per process, and their evaluations are counted.
"""

from collections.abc import Mapping
from typing import Any

from latentbench.cells.catalogue import option
from latentbench.option import Option
from latentbench.types import Capability

GIVES = {
    "model": Capability.SECOND_MODEL,
    "scorer": Capability.SCORER,
    "classifier": Capability.CLASSIFIER,
}


def named_by(cls: type[Any], settings: Mapping[str, Any]) -> dict[str, Option]:
    """Return the other parts that these settings of a method or a benchmark name, by setting.

    Args:
        cls: class of the method or the benchmark.
        settings: its settings.

    Raises:
        BadInput: a setting names an option that does not exist.
    """
    named = {name: (group, settings.get(name)) for name, group in cls.others.items()}
    return {name: option(group, str(one)) for name, (group, one) in named.items() if one}


def given_by(cls: type[Any], settings: Mapping[str, Any]) -> frozenset[Capability]:
    """Return what the named parts give."""
    named = {group for name, group in cls.others.items() if settings.get(name)}
    return frozenset(GIVES[group] for group in named & GIVES.keys())
