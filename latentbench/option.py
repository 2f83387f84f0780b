"""One choice of a group in conf/: a class with its settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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

    @property
    def target(self) -> str:
        """Where the class is imported from."""
        return f"{self.cls.__module__}.{self.cls.__qualname__}"

    def build(self, **extra: Any) -> Any:
        """Build it; metrics, benchmarks and methods read no weight then."""
        return self.cls(**self.config, **extra)
