"""Hydra's own sweeper, which composes a config beforehand for each part of a sweep alone.

Before its first job, Hydra composes the config of every job, to find what does not compose; a job
then composes its config again. Where the settings of a group depend on the words about that group
alone, it is enough that each of these words has been composed once: ten models and twenty methods
need twenty configs, not two hundred. Hydra also parses every yaml anew for every config; here each
is parsed once.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.plugins.config_source import ConfigResult
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_method
from omegaconf import DictConfig


class KeptRepository(CachingConfigRepository):
    """Parses each yaml once and gives out copies, for as long as the process lives.

    So a yaml that is edited while a sweep runs does not change it. Pickled for workers, it takes
    along what it has parsed.

    Args:
        delegate: reads the yamls.
    """

    def __init__(self, delegate: IConfigRepository) -> None:
        self.delegate, self.cache = delegate, {}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return a copy of a config, which Hydra may change."""
        return copy.deepcopy(super().load_config(config_path))

    def __deepcopy__(self, memo: dict[int, Any]) -> "KeptRepository":
        return self  # Hydra copies it for every config


class PartsSweeper(BasicSweeper):
    """Composes, before any job, as many jobs as have all words of all groups among them.

    Args:
        settled: first words of overrides that need no look, such as "seed".
        belongs: first word -> another whose overrides it depends on, such as metric: benchmark.
        remaining: full name of a function (jobs, compose, folder of the sweep) that returns those
            jobs that have something to do; `compose` gives the config of a job. None: all have.
        others: see `BasicSweeper`.
    """

    def __init__(
        self,
        settled: Sequence[str] = (),
        belongs: Mapping[str, str] | None = None,
        remaining: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.settled, self.belongs = frozenset(settled), dict(belongs or {})
        self.remaining, self._asked = remaining, False
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives, and the yamls."""
        loader: Any = hydra_context.config_loader
        loader.repository = KeptRepository(loader.repository)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def is_done(self) -> bool:
        """Return whether no job is left, of those that have something to do."""
        if self.remaining is not None and not self._asked:
            sweep: Any = self.config
            ask, folder = get_method(self.remaining), Path(str(sweep.hydra.sweep.dir))
            batches = self.overrides or []
            jobs = [job for batch in batches for job in batch]
            left = {tuple(job) for job in ask(jobs, self.compose, folder)}
            kept = [[job for job in batch if tuple(job) in left] for batch in batches]
            self.overrides = [batch for batch in kept if batch]
        self._asked = True
        return super().is_done()

    def compose(self, words: Sequence[str]) -> DictConfig:
        """Return the config of a job, which is composed once."""
        key = tuple(words)
        if key not in self._composed:
            context: Any = self.hydra_context
            found = context.config_loader.load_sweep_config(self.config, list(words))
            self._composed[key] = found
        return self._composed[key]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose the first job that has a part, for each part of the batch."""
        seen: set[tuple[str, ...]] = set()
        for words in batch:
            parts = self._parts(words)
            if not seen or not parts <= seen:
                self.compose(words)
            seen |= parts

    def _parts(self, words: Sequence[str]) -> set[tuple[str, ...]]:
        """Return the words of a job, those that depend on each other together."""
        parts: dict[str, tuple[str, ...]] = {}
        for word in words:
            first = word.lstrip("+~").partition("=")[0].partition(".")[0].partition("@")[0]
            first = self.belongs.get(first, first)
            if first not in self.settled:
                parts[first] = (*parts.get(first, ()), word)
        return {(first, *own) for first, own in parts.items()}
