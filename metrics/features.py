"""What metrics read images with, and sets of features with their reference."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import map_batches
from latentbench.cache import content_hash
from latentbench.data.dataset import Dataset
from latentbench.metric import Metric, Surroundings
from latentbench.statistics import jackknife
from latentbench.types import Samples, Score

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
BATCH = 16  # images a network sees at once, on every machine
GROUPS = 10  # of images, left out in turn for an interval
LOADED = 256  # reference images held in memory at once
RECENT = 4  # sets of images whose features are remembered between metrics
LEFT_OUT, MEASURED = "left_out", "measured"  # sums: numbers of rows

Set = tuple[Array, list[str]]  # features [n, d] of images, and the id of each


class Extractor(Protocol):
    """A network that turns images into features.

    Attributes:
        name: what columns carry; empty for a published network.
        digest: hash of its weights.
    """

    name: str
    digest: str

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the features of images in [-1, 1]."""
        ...


class Reader:
    """A judge that reads images of any number of leading axes, always in batches of one size.

    Args:
        name: the judge's name, "zoo1" or "zoo2".
        surroundings: gives the judge and the device.

    Example:
        >>> Reader("zoo1", surroundings).factors(samples.outputs).shape
        torch.Size([32, 5, 20])
    """

    def __init__(self, name: str, surroundings: Surroundings) -> None:
        self.name, self.device = name, surroundings.device
        self.judge = surroundings.judge(name, surroundings.device)
        state = self.judge.state_dict()
        self.digest = content_hash(type(self.judge).__name__, *state, *state.values())

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return features for distances between sets."""
        return self._read(self.judge.features, images)

    def factors(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n f"]:
        """Return factors in [0, 1], in the order of `latentbench.data.faces.FACTOR_NAMES`."""
        return self._read(self.judge.factors, images)

    def identity(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n e"]:
        """Return identity embeddings of unit length."""
        return self._read(self.judge.identity, images)

    def distance(
        self, a: Float[Tensor, "*n 3 h w"], b: Float[Tensor, "*n 3 h w"]
    ) -> Float[Tensor, "*n"]:
        """Return the learned perceptual distance of pairs; `b` may be broadcast."""
        pairs = torch.stack([a, b.expand_as(a)], -4)
        read = self._read(lambda p: self.judge.distance(p[:, 0], p[:, 1])[:, None], pairs, 4)
        return read[..., 0]

    def _read(self, read: Callable[[Tensor], Tensor], images: Tensor, axes: int = 3) -> Tensor:
        rows = images.flatten(0, -axes - 1)
        found = map_batches(lambda part: read(part.to(self.device)).cpu(), rows, BATCH)
        return found.unflatten(0, images.shape[:-axes])


def read_once(
    surroundings: Surroundings, extractor: Extractor, images: Float[Tensor, "*n 3 h w"]
) -> Float[Tensor, "*n d"]:
    """Return the features of images, known already where another metric has just read them."""
    key, recent = content_hash(extractor.digest, images), surroundings.recent
    if key not in recent:
        recent[key] = extractor.features(images)
        for old in list(recent)[:-RECENT]:
            del recent[old]
    return recent[key]


def read_split(
    surroundings: Surroundings,
    extractor: Extractor,
    kind: str,
    split: str,
    indices: range,
) -> Tensor:
    """Return what a network reads on images of the data set, from the cache where it is known.

    Args:
        surroundings: data set and cache.
        extractor: who reads.
        kind: "features" or "factors", a method of the extractor.
        split: split of the data set.
        indices: which images.
    """
    data = surroundings.dataset
    key = content_hash(extractor.digest, kind, *_contents(data), split, str(indices))

    def make() -> dict[str, Tensor]:
        parts = [indices[k : k + LOADED] for k in range(0, len(indices), LOADED)]
        read = getattr(extractor, kind)
        return {kind: torch.cat([read(data.batch(split, part).images) for part in parts])}

    return surroundings.cache.get_or_make("features", key, make)[kind]


def _contents(data: Dataset) -> tuple[Any, ...]:
    """Return what a data set's images depend on."""
    plain = {k: v for k, v in vars(data).items() if isinstance(v, str | int | float | tuple | None)}
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    return kind, data.version, data.fingerprint(), plain


class FeatureSets(Metric):
    """Base of distances between the set of outputs and a set of real images.

    Real images are the last of their split, where benchmarks, which take the first, do not reach;
    the images before them give the floor: the distance of real to real at the outputs' number.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images, fewer where the split is smaller.
    """

    prefix: str

    def __init__(
        self, *, extractor: str = "zoo1", reference_split: str = "test", reference_n: int = 2048
    ) -> None:
        super().__init__()
        self.extractor, self.reference_split = extractor, reference_split
        self.reference_n = reference_n

    @property
    def column(self) -> str:
        """Name of the figure."""
        return f"{self.prefix}_{self.extractor}"

    def load(self, surroundings: Surroundings) -> Extractor:
        """Return the network that gives the features."""
        return Reader(self.extractor, surroundings)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the network."""
        super().prepare(surroundings)
        self.network = self.load(surroundings)

    def images(self, samples: Samples) -> Float[Tensor, "b k 3 h w"]:
        """Return the images that count, by row."""
        return samples.headline()

    def settings(self) -> dict[str, Any]:
        """Return the settings, with the hash of the network's weights."""
        return super().settings() | {"weights": self.network.digest}

    def add(self, samples: Samples) -> None:
        """Keep the features of the rows that reach the matched effect."""
        counts = torch.ones(len(samples)) if samples.matched is None else samples.matched
        rows = counts.nonzero().flatten().tolist()
        self.seen.add(LEFT_OUT, torch.tensor(len(samples) - len(rows)))
        self.seen.add(MEASURED, torch.tensor(len(rows)))
        if rows:
            samples = samples.rows(rows)
            found = read_once(self.surroundings, self.network, self.images(samples))
            self.seen.append(samples.ids, samples.groups, features=found)

    def collected(self) -> Set:
        """Return the features and the id of each, in an order that rows do not change."""
        if not len(self.seen):
            return np.zeros((0, 0)), []
        order = self.seen.order()
        features = self.seen.column("features")[order].double()
        ids = [self.seen.ids[k] for k in order for _ in range(features.shape[1])]
        return features.flatten(0, 1).numpy(), ids

    def reference(self) -> Set:
        """Return the features of the real images, with their ids."""
        size = self.surroundings.dataset.size(self.reference_split)
        return self.real(self.reference_split, range(max(0, size - self.reference_n), size))

    def other_real(self, n: int) -> Set | None:
        """Return n further real images, or None where the split has too few."""
        size = self.surroundings.dataset.size(self.reference_split)
        last = size - self.reference_n
        return self.real(self.reference_split, range(last - n, last)) if last >= n else None

    def remark(self) -> str:
        """Return how many rows were left out, in words."""
        left_out, measured = (int(self.seen.sums.get(n, 0)) for n in (LEFT_OUT, MEASURED))
        reason = f"{left_out} of {left_out + measured} rows did not reach the matched effect"
        return reason if left_out else ""

    def real(self, split: str, indices: range) -> Set:
        """Return the features of these images of the data set, with their ids."""
        found = read_split(self.surroundings, self.network, "features", split, indices)
        return found.double().numpy(), [f"{split}/{k}" for k in indices]


def groups(ids: Sequence[str], count: int = GROUPS) -> Rows:
    """Return the group, 0..count - 1, of each row; rows of one id stay together.

    Example:
        >>> groups(["a", "a", "b", "c"], 2).tolist()
        [0, 0, 1, 0]
    """
    place = {name: k % count for k, name in enumerate(sorted(set(ids)))}
    return np.array([place[i] for i in ids])


def jackknife_score(distance: Callable[[Sequence[int]], float], n: int, why_not: str) -> Score:
    """Return a figure of sets with its jackknife interval.

    Args:
        distance: the figure of the given groups of both sets.
        n: number of independent images.
        why_not: why there is no interval, or an empty string.

    Example:
        >>> score = jackknife_score(lambda kept: 1.0, 20, "")
        >>> score.value, score.low, score.high
        (1.0, 1.0, 1.0)
    """
    value = distance(range(GROUPS))
    if why_not:
        return Score(value, n, note=why_not)
    replicates = [distance([k for k in range(GROUPS) if k != out]) for out in range(GROUPS)]
    return Score(value, n, *jackknife(value, replicates), replicates=tuple(replicates))


def too_few(*sets: Sequence[str]) -> str:
    """Return why these sets of ids have no jackknife interval, or an empty string."""
    n, least = min(len(set(ids)) for ids in sets), 2 * GROUPS
    return f"no interval: {n} images, at least {least} needed on each side" if n < least else ""
