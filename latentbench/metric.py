"""The interface of every metric, and the base of those that give one value per image."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torchmetrics
from torch import Tensor

from latentbench.cache import Cache
from latentbench.data.dataset import Dataset
from latentbench.statistics import mean_score
from latentbench.types import Samples, Score


@dataclass(frozen=True)
class Figure:
    """What one column of the leaderboard is.

    Args:
        description: what it measures, in one line.
        unit: "dB", "radians", "" for dimensionless.
        low: smallest possible value, or None.
        high: largest possible value, or None.
        higher_is_better: direction, or None where neither is better.
    """

    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    higher_is_better: bool | None = None


@dataclass(frozen=True)
class Surroundings:
    """What a metric may look at beside samples.

    Args:
        dataset: where reference images come from.
        device: where networks run.
        cache: shared store for reference features.
        weights_dir: folder of published weights, or None.
    """

    dataset: Dataset
    device: torch.device
    cache: Cache
    weights_dir: Path | None = None


class Metric(torchmetrics.Metric):
    """A metric: `prepare` once, `update` with samples, `compute` the scores, `table` the values.

    Class attributes:
        version: raised when a fix changes figures; part of every cell's id.
        needs: fields of `Samples` beside `outputs` that must be there.
        figures: name -> what that column is. A metric trained in this suite carries its
            extractor's id in each name; a bare published name means published weights.
        source: title and section of the definition.
    """

    version: ClassVar[int] = 1
    needs: ClassVar[frozenset[str]] = frozenset()
    source: ClassVar[str] = ""
    full_state_update = False

    @property
    @abstractmethod
    def figures(self) -> Mapping[str, Figure]:
        """The scores that `compute` may return."""

    def missing(self, weights_dir: Path | None) -> str | None:
        """Return why this metric is switched off, or None: published weights that are absent."""
        del weights_dir
        return None

    def prepare(self, surroundings: Surroundings) -> None:
        """Load networks and reference statistics; called once, before the first update."""
        self.surroundings = surroundings

    @abstractmethod
    def update(self, samples: Samples) -> None:
        """Take samples in; they come sorted by id, in chunks."""

    @abstractmethod
    def compute(self) -> dict[str, Score]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the scores by figure name."""

    def table(self) -> dict[str, Tensor]:
        """Return per-sample values ``[rows, s]`` by figure name, in the order of the updates."""
        return {}


class SampleMetric(Metric):
    """A metric with one value per image or per output; its score is a mean over images.

    A subclass gives `figures`, `needs` and `values`. The interval is the percentile bootstrap
    over ids, so all outputs of one image stay together.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._values: dict[str, list[Tensor]] = {}
        self._ids: list[str] = []
        self._main: int | None = None

    @abstractmethod
    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return float values ``[b]`` or ``[b, s]`` by figure name; NaN where undefined."""

    def update(self, samples: Samples) -> None:
        """Measure the samples and keep every value."""
        for name, value in self.values(samples).items():
            kept = value.detach().double().cpu()
            self._values.setdefault(name, []).append(kept.reshape(len(samples), -1))
        self._ids += samples.ids
        self._main = samples.main

    def compute(self) -> dict[str, Score]:
        """Return the mean over images of each figure, at the headline output."""
        return {name: mean_score(self._headline(v), self._ids) for name, v in self.table().items()}

    def table(self) -> dict[str, Tensor]:
        """Return every value, ``[rows, s]`` (s = 1 for values of a whole row)."""
        return {name: torch.cat(parts) for name, parts in self._values.items()}

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._values, self._ids = {}, []

    def _headline(self, values: Tensor) -> Tensor:
        whole_row = values.shape[1] == 1 or self._main is None
        return values if whole_row else values[:, [self._main]]
