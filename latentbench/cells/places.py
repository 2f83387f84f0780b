"""Where a cell's files lie: the paths of `results`, made absolute once."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from latentbench.paths import on_this_machine, place, user_path


@dataclass(frozen=True)
class Places:
    """The paths of `results`, seen from the folder in which the command was typed, or addresses.

    Args:
        results: records and leaderboard.
        cache: inversions, fits and reference features, or None to compute always.
        weights: published weights, or None where there are none.
    """

    results: Path
    cache: Path | None
    weights: Path | None

    @classmethod
    def of(cls, config: DictConfig) -> "Places":
        """Return the places that a config names.

        Raises:
            BadInput: a path is empty or no text.
        """
        given, optional = config.results, {"cache": place, "weights_dir": user_path}
        cache, weights = (
            None if given[name] is None else find(given[name], f"results.{name}")
            for name, find in optional.items()
        )
        return cls(place(given.dir, "results.dir"), cache, weights)

    @property
    def here(self) -> Path:
        """The folder of what stays on this machine: logs of commands, runs of the tracker."""
        return on_this_machine(self.results)

    @property
    def cells(self) -> Path:
        """The folder that holds one folder per cell."""
        return self.results / "cells"
