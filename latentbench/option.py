"""One choice of a group in conf/: a class with its settings."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.utils import get_class

from latentbench.errors import BadInput


@dataclass(frozen=True)
class Option:
    """One yaml of a group. Its class is imported when it is asked for, and not before.

    Args:
        name: what a user types.
        target: where its class is imported from.
        config: its settings, `_target_` left out; unset ones (``???``) are None.
        fault: why the yaml cannot be used, or an empty string.
    """

    name: str
    target: str
    config: Mapping[str, Any]
    fault: str = ""

    @property
    def cls(self) -> type[Any]:
        """The class.

        Raises:
            BadInput: the yaml cannot be used, or the class cannot be imported; says why.
        """
        found = self.fault or _imported(self.target)
        if isinstance(found, str):
            raise BadInput(f"{self.name} is broken: {found}")
        return found

    @property
    def package(self) -> str:
        """The package that its class comes from: "methods", or a plug-in's."""
        return self.target.partition(".")[0]

    def build(self, **extra: Any) -> Any:
        """Build it; metrics, benchmarks and methods read no weight then."""
        return self.cls(**self.config, **extra)


@functools.cache
def _imported(target: str) -> type[Any] | str:
    """Return a class, or why it cannot be imported: in words, so that it is tried once only."""
    try:
        return get_class(target)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may raise what it likes, SystemExit too
        cause = error.__cause__ or error
        return f"{target} cannot be imported ({type(cause).__name__}: {cause})"
