"""The interface of every metric, and the base of those that give one value per image."""

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torchmetrics
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.batching import padded_batches
from latentbench.cache import Cache
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.intervals import Kind
from latentbench.metric_state import Seen, as_json, as_tensor
from latentbench.statistics import add_note, row_score
from latentbench.types import At, Capability, Samples, Score
from latentbench.zoo.published_weights import PublishedWeights, first_missing

IMAGES = (
    "outputs",
    "sources",
    "truths",
    "other_truths",
    "alone",
    "reconstructions",
    "ends",
    "before_after",
)
SLACK = 1e-4  # by how much float rounding may leave [-1, 1]
SETTINGS = "settings"  # name under which a state keeps them
VALUES, MATCHED, MAIN = "values/", "matched", "main"  # columns of what was seen
FED_BY = {  # fields of samples that there are only where the data set gives this
    "factors": Capability.LABELS,
    "wanted": Capability.LABELS,
    "prompts": Capability.PROMPTS,
    "source_prompts": Capability.PROMPTS,
}
ALL = -1  # main output of samples that have none: all count
SHARE = 0.01  # of a range: the smallest difference that matters
ROWS = 16  # rows measured at once: sums over rows of another number may round differently


@dataclass(frozen=True)
class Figure:
    """What one column of the leaderboard is.

    Args:
        description: what it measures, in one line.
        unit: "dB", "radians", "" for dimensionless.
        low: smallest possible value, or None.
        high: largest possible value, or None.
        higher_is_better: direction, or None where neither is better.
        kind: what it is made of, which decides its interval.
        smallest: the smallest difference that matters; 1% of the range by default. Without a finite
            range None: a board takes 1% of the figure's median size there.
    """

    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    higher_is_better: bool | None = None
    kind: Kind = Kind.MEAN
    smallest: float | None = None

    def __post_init__(self) -> None:
        if self.smallest is None and self.low is not None and self.high is not None:
            object.__setattr__(self, "smallest", SHARE * (self.high - self.low))


@runtime_checkable
class Judge(Protocol):
    """A network that reads images for metrics, in batches on its own device.

    Attributes:
        name: what columns carry (``fd_zoo1``).
    """

    name: str

    def features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return features of whole images, for distances of sets."""
        ...

    def factors(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return estimated factors in [0, 1], in the order of the data set's factors."""
        ...

    def identity(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b e"]:
        """Return identity embeddings of unit length."""
        ...

    def pyramid(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return feature maps from fine to coarse."""
        ...

    def distance(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Return learned perceptual distances of image pairs."""
        ...

    def style(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return statistics of features that do not depend on their places."""
        ...

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the weights, which name what it reads in caches."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What a metric may look at besides samples.

    Args:
        dataset: where reference images come from.
        device: where networks run.
        cache: shared store for reference features.
        judge: gives the judge of a name, on a device.
        weights_dir: folder of published weights, or None.
        recent: features read last, by their key: metrics of one network read an image once.
    """

    dataset: Dataset
    device: torch.device
    cache: Cache
    judge: Callable[[str, torch.device], Judge]
    weights_dir: Path | None = None
    recent: dict[str, Tensor] = field(default_factory=dict)


class Metric(torchmetrics.Metric):
    """A metric: `prepare` once, `update` with samples, `compute` the scores, `table` the values.

    A subclass gives `figures`, `add` and `compute`, and keeps all that it has to remember in
    `seen`. No score may depend on the order of the rows or on how they are split over updates:
    networks are called in fixed-size batches only. So samples may be measured in shards: `state`
    goes to disk or to another worker, `merge_state` takes it in, in any order; merged into a fresh
    metric it resumes.

    Attributes:
        version: raised when a fix changes figures; part of every cell's id.
        at: which output of a row counts: "main" for a main score, "effect" (the default) for what
            explains it at matched effect; the same where a benchmark matches no effect.
        needs: fields of `Samples` besides `outputs` that must be present; a setting may decide.
        fewest: images below which none of its figures has a value; a setting may decide.
        figures: name -> what that column is. A metric trained in this suite carries its
            extractor's id in each name; a bare published name means published weights.
        source: title and section of the definition.
        fixed_networks: embedded networks that it looks through whatever its settings; their hashes
            are part of every cell's id.
        weights: published files without which the metric is switched off; a setting may decide.
    """

    version: ClassVar[int] = 2
    at: ClassVar[At] = "effect"
    needs: frozenset[str] = frozenset()
    fewest: int = 1
    source: ClassVar[str] = ""
    fixed_networks: ClassVar[frozenset[str]] = frozenset()
    weights: tuple[PublishedWeights, ...] = ()
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()

    @property
    @abstractmethod
    def figures(self) -> Mapping[str, Figure]:
        """The scores that `compute` may return."""

    def missing(self, weights_dir: Path | None) -> str | None:
        """Return why this metric is switched off, or None: published weights that are absent."""
        return first_missing(self.weights, weights_dir)

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why this data set cannot feed the metric, or None; asked before any work."""
        lacking = {FED_BY[name] for name in self.needs & FED_BY.keys()} - dataset.gives
        if not lacking:
            return None
        return f"needs {', '.join(sorted(lacking))}, which {type(dataset).__name__} does not give"

    def prepare(self, surroundings: Surroundings) -> None:
        """Load networks and reference statistics; called once, before the first update."""
        self.surroundings = surroundings

    def update(self, samples: Samples) -> None:
        """Take samples in.

        Raises:
            BadInput: a field is missing, or images are not float32 in [-1, 1].
        """
        self.check(samples)
        self.add(samples)

    @abstractmethod
    def add(self, samples: Samples) -> None:
        """Take checked samples in."""

    @abstractmethod
    def compute(self) -> dict[str, Score]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the scores by figure name; "figure/case" for a figure of one case alone."""

    def table(self) -> dict[str, Tensor]:
        """Return per-sample values ``[rows, s]`` by figure name, in the order of the updates."""
        return {}

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.seen = Seen()

    def settings(self) -> dict[str, Any]:
        """Return what two metrics must share before one may take in the other's samples."""
        given = inspect.signature(type(self)).parameters
        cls = f"{type(self).__module__}.{type(self).__qualname__}"
        return {
            "class": cls,
            "version": self.version,
            **{name: getattr(self, name, None) for name in given},
        }

    def state(self) -> dict[str, Tensor]:
        """Return all that was seen, as tensors by name; safetensors can hold them."""
        return {SETTINGS: as_tensor(self.settings()), **self.seen.state()}

    def merge_state(self, incoming_state: "Mapping[str, Tensor] | Metric") -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take in what another metric of the same settings has seen.

        Args:
            incoming_state: the other metric, or its `state`.

        Raises:
            BadInput: it has other settings, or reads with other weights.
        """
        other = incoming_state
        state = other.state() if isinstance(other, Metric) else other
        own, given = as_json(as_tensor(self.settings())), as_json(state[SETTINGS])
        if own != given:
            odd = [k for k in sorted(own | given) if own.get(k) != given.get(k)]
            raise BadInput(
                f"{type(self).__name__} can merge equal settings only; "
                f"{', '.join(f'{k} is {own.get(k)!r}, got {given.get(k)!r}' for k in odd)}; "
                f"measure all shards with one config"
            )
        self.seen.merge(state)

    def check(self, samples: Samples) -> None:
        """Raise BadInput, naming metric and field, when samples cannot be measured."""
        name, found = type(self).__name__, samples.tensors()
        for key in sorted(self.needs - found.keys() - samples.texts().keys()):
            raise BadInput(
                f"{name} needs Samples.{key}, got None; take a benchmark that gives it, or leave "
                f"the metric out"
            )
        for key in IMAGES:
            if key in found and (what := _wrong(found[key])):
                raise BadInput(f"{name}: Samples.{key} must be float32 in [-1, 1], got {what}")
        _check_sizes(name, found)

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        return compute  # torchmetrics would try to write into the frozen scores


class SampleMetric(Metric):
    """A metric with one value per image or per output; its score is a mean or a rate over rows.

    A subclass gives `figures`, `needs` and `values`. The interval is that of the figure's kind
    over ids, so all outputs of one image stay together. Values per output count at one output only
    (see `at`), and only for rows that reach the matched effect where that is the one; values of
    whole rows always do. `values` is called with 16 rows each time, the last padded, so a row's
    bytes never change.

    A figure in `ratios` is a ratio of sums over images, of each group as well, and never a mean of
    ratios of single images, which small denominators rule. Its table holds `linearised` values.
    """

    @property
    def ratios(self) -> Mapping[str, str]:
        """Figure -> name of the values by whose sum the sum of its own is divided."""
        return {}

    @abstractmethod
    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return float values ``[b]`` or ``[b, s]`` by figure name; NaN where undefined.

        Values under names that are not figures are kept for `mean_of` and not shown.
        """

    def add(self, samples: Samples) -> None:
        """Measure the samples and keep every value."""
        found: dict[str, list[Tensor]] = {}
        for index, count in padded_batches(len(samples), ROWS):
            for name, value in self.values(samples.rows(index)).items():
                found.setdefault(name, []).append(value[:count].double())
        main = samples.column(self.at)
        columns = {VALUES + name: torch.cat(parts) for name, parts in found.items()}
        columns[MATCHED] = samples.counting(self.at)
        columns[MAIN] = torch.full((len(samples),), ALL if main is None else main)
        self.seen.append(samples.ids, samples.groups, **columns, **self.kept(samples))

    def kept(self, samples: Samples) -> dict[str, Tensor]:
        """Return further columns to keep, one row per sample; none by default."""
        del samples
        return {}

    def compute(self) -> dict[str, Score]:
        """Return the mean over images of each figure, at the output that counts."""
        groups, shown = sorted(set(self.seen.groups)), self.table()
        return {name: self.mean_of(name) for name in shown} | {
            f"{name}/{group}": self.mean_of(name, group)
            for name in self.ratios
            if name in shown
            for group in groups
            if len(groups) > 1
        }

    def mean_of(self, name: str, group: str | None = None) -> Score:
        """Return the mean over images of the values under this name, at the output that counts.

        Args:
            name: of a figure, or of values that are kept for this.
            group: rows of this group alone; None: all.
        """
        inside = torch.tensor([group in (None, g) for g in self.seen.groups], dtype=torch.bool)
        values, main = self._shown(name, inside), int(self.seen.column(MAIN)[0])
        if values.ndim == 1 or main == ALL:
            return row_score(values[inside], self._ids(inside), self._kind(name))
        rows = inside & self.seen.column(MATCHED)
        score = row_score(values[rows][:, [main]], self._ids(rows), self._kind(name))
        left_out, asked = int((inside & ~rows).sum()), int(inside.sum())
        reason = f"{left_out} of {asked} rows did not reach the matched effect"
        return add_note(score, reason if left_out else "")

    def _kind(self, name: str) -> Kind:
        return self.figures[name].kind if name in self.figures else Kind.MEAN

    def _ids(self, rows: Bool[Tensor, " b"]) -> list[str]:
        return [name for name, take in zip(self.seen.ids, rows.tolist(), strict=True) if take]

    def _shown(self, name: str, inside: Bool[Tensor, " b"]) -> Tensor:
        """Return the values under this name; of a ratio those that are linear in the images."""
        found = self.measured()
        if name not in self.ratios:
            return found[name]
        top, bottom = found[name], found[self.ratios[name]]
        main = int(self.seen.column(MAIN)[0])
        if main == ALL:
            rows = inside[:, None].expand_as(bottom).flatten()
            return linearised(top.flatten(), bottom.flatten(), rows).reshape(top.shape)
        if top.ndim == 1:
            return linearised(top, bottom[:, main], inside)
        counts = inside & self.seen.column(MATCHED)
        rows = counts if bool(counts.any()) else inside
        columns = [linearised(a, b, rows) for a, b in zip(top.T, bottom.T, strict=True)]
        return torch.stack(columns, 1)

    def table(self) -> dict[str, Tensor]:
        """Return every value, ``[rows, s]`` (s = 1 for values of a whole row)."""
        everyone = torch.ones(len(self.seen), dtype=torch.bool)
        shown = {n: self._shown(n, everyone) for n in self.measured() if n in self.figures}
        return {name: v.reshape(len(v), -1) for name, v in shown.items()}

    def measured(self) -> dict[str, Tensor]:
        """Return all values by name, ``[rows]`` or ``[rows, s]``, those that are not shown too."""
        found = self.seen.columns()
        return {n.removeprefix(VALUES): v for n, v in found.items() if n.startswith(VALUES)}


def linearised(
    top: Float[Tensor, " b"], bottom: Float[Tensor, " b"], rows: Bool[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Return values whose mean over these rows is sum(top) / sum(bottom).

    R + (top - R bottom) / mean(bottom): an interval and a paired test of their mean are those of
    the ratio. NaN where the sums are not defined or the lower one is 0.

    Source: Cochran, "Sampling Techniques", section 2.11, the large-sample variance of a ratio.

    Args:
        top: numerator of each row.
        bottom: denominator of each row.
        rows: which rows the sums run over.

    Example:
        >>> linearised(torch.ones(2), torch.tensor([1.0, 3.0]), torch.ones(2) > 0).tolist()
        [0.75, 0.25]
    """
    known = rows & top.isfinite() & bottom.isfinite()
    n, above, below = int(known.sum()), *(math.fsum(x[known].tolist()) for x in (top, bottom))
    if below == 0:
        return torch.full_like(top, torch.nan)
    ratio = above / below
    return ratio + (top - ratio * bottom) * (n / below)


def _check_sizes(name: str, found: Mapping[str, Tensor]) -> None:
    """Raise BadInput when images and masks are not all as large as the outputs."""
    size = found["outputs"].shape[-2:]
    for key in IMAGES:
        if key in found and found[key].shape[-3:] != (3, *size):
            raise BadInput(
                f"{name}: Samples.{key} must be RGB and as large as outputs {tuple(size)}, got "
                f"{tuple(found[key].shape[-3:])}"
            )
    masks = found.get("masks")
    if masks is None:
        return
    if masks.shape[1:] != size or not bool(((masks == 0) | (masks == 1)).all()):
        raise BadInput(
            f"{name}: Samples.masks must be float32 of 0 and 1 and as large as outputs "
            f"{tuple(size)}, got {masks.dtype} {tuple(masks.shape[1:])} in "
            f"[{float(masks.min()):g}, {float(masks.max()):g}]"
        )


def _wrong(images: Tensor) -> str:
    """Return what is wrong with images, or an empty string."""
    if images.dtype != torch.float32:
        return str(images.dtype)
    if not images.numel():
        return ""
    low, high = float(images.min()), float(images.max())
    inside = low >= -1 - SLACK and high <= 1 + SLACK  # false for NaN as well
    return "" if inside else f"values in [{low:g}, {high:g}]"
