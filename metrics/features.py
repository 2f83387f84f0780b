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
from latentbench.types import Samples

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
BATCH = 16  # images a network sees at once, on every machine
GROUPS = 10  # of images, left out in turn for an interval
LOADED = 256  # reference images held in memory at once


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
        self.reset()

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

    def add(self, samples: Samples) -> None:
        """Keep the features of the rows that reach the matched effect."""
        counts = torch.ones(len(samples)) if samples.matched is None else samples.matched
        rows = counts.nonzero().flatten().tolist()
        self._left_out += len(samples) - len(rows)
        if not rows:
            return
        samples = samples.rows(rows)
        found = self.network.features(self.images(samples)).double()
        self._features.append(found.flatten(0, 1).cpu())
        keys = zip(samples.ids, samples.groups, strict=True)
        self._keys += [(i, g, k) for i, g in keys for k in range(found.shape[1])]

    def collected(self) -> tuple[Array, list[str]]:
        """Return features ``[n, d]`` and the id of each, in an order that rows do not change."""
        if not self._keys:
            return np.zeros((0, 0)), []
        order = sorted(range(len(self._keys)), key=self._keys.__getitem__)
        features = torch.cat(self._features)[order].numpy()
        return features, [self._keys[k][0] for k in order]

    def reference(self) -> tuple[Array, list[str]]:
        """Return the features of the real images, with their ids."""
        size = self.surroundings.dataset.size(self.reference_split)
        return self._real(range(max(0, size - self.reference_n), size))

    def other_real(self, n: int) -> tuple[Array, list[str]] | None:
        """Return n further real images, or None where the split has too few."""
        size = self.surroundings.dataset.size(self.reference_split)
        last = size - self.reference_n
        return self._real(range(last - n, last)) if last >= n else None

    def remark(self) -> str:
        """Return how many rows were left out, in words."""
        total = self._left_out + len({key[:2] for key in self._keys})
        reason = f"{self._left_out} of {total} rows did not reach the matched effect"
        return reason if self._left_out else ""

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._features: list[Tensor] = []
        self._keys: list[tuple[str, str, int]] = []
        self._left_out = 0

    def _real(self, indices: range) -> tuple[Array, list[str]]:
        split = self.reference_split
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


def too_few(*sets: Sequence[str]) -> str:
    """Return why these sets of ids have no jackknife interval, or an empty string."""
    n, least = min(len(set(ids)) for ids in sets), 2 * GROUPS
    return f"no interval: {n} images, at least {least} needed on each side" if n < least else ""
