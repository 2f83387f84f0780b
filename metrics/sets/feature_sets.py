"""Sets of features with their reference: the base of distances between sets of images."""

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import SetSize
from latentbench.data.dataset import Dataset, Split
from latentbench.metric import Metric, Surroundings
from latentbench.types import Capability, Samples
from latentbench.zoo.judges import JudgeName
from metrics.jackknife import Array
from metrics.networks.reader import Extractor, Reader, read_once, read_split

LEFT_OUT, MEASURED = "left_out", "measured"  # sums: numbers of rows

Set = tuple[Array, list[str]]  # features [n, d] of images, and the id of each


def too_few(dataset: Dataset, split: str, fewest: int, second: bool = False) -> str | None:
    """Return that a split holds fewer images than are needed, in words, or None."""
    if second and Capability.SECOND_DOMAIN not in dataset.gives:
        return f"needs images of another domain, {type(dataset).__name__} has images of one"
    size = _size(dataset, split, second) if fewest else 0
    if size >= fewest:
        return None
    where = f"the split {split!r}{' of the second domain' if second else ''}"
    return f"needs {fewest} images of {where}, {type(dataset).__name__} has {size}"


def _size(dataset: Dataset, split: str, second: bool) -> int:
    return dataset.second_size(split) if second else dataset.size(split)


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
    fewest_real: ClassVar[int] = 2  # images of the reference split without which there is no figure
    second: ClassVar[bool] = False  # whether the real images are those of the second domain

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        reference_split: Split = "test",
        reference_n: SetSize = 2048,
    ) -> None:
        super().__init__()
        self.extractor, self.reference_split = extractor, reference_split
        self.reference_n = reference_n

    @property
    def column(self) -> str:
        """Name of the figure."""
        return f"{self.prefix}_{self.extractor}"

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: a reference split of too few images."""
        few = too_few(dataset, self.reference_split, self.fewest_real, self.second)
        return super().unfed(dataset) or few

    def load(self, surroundings: Surroundings) -> Extractor:
        """Return the network that gives the features."""
        return Reader(self.extractor, surroundings)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the network."""
        super().prepare(surroundings)
        self.network = self.load(surroundings)

    def images(self, samples: Samples) -> Float[Tensor, "b k 3 h w"]:
        """Return the images that count, by row."""
        return samples.headline(self.at)

    def settings(self) -> dict[str, Any]:
        """Return the settings, with the hash of the network's weights."""
        return super().settings() | {"weights": self.network.digest}

    def add(self, samples: Samples) -> None:
        """Keep the features of the rows that reach the matched effect."""
        rows = samples.counting(self.at).nonzero().flatten().tolist()
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
        size = _size(self.surroundings.dataset, self.reference_split, self.second)
        return self.real(self.reference_split, range(max(0, size - self.reference_n), size))

    def other_real(self, n: int) -> Set | None:
        """Return n further real images, or None where the split has too few."""
        size = _size(self.surroundings.dataset, self.reference_split, self.second)
        last = size - self.reference_n
        return self.real(self.reference_split, range(last - n, last)) if last >= n else None

    def remark(self) -> str:
        """Return how many rows were left out, in words."""
        left_out, measured = (int(self.seen.sums.get(n, 0)) for n in (LEFT_OUT, MEASURED))
        reason = f"{left_out} of {left_out + measured} rows did not reach the matched effect"
        return reason if left_out else ""

    def real(self, split: str, indices: range) -> Set:
        """Return the features of these images of the data set, with their ids.

        Their ids are those of the benchmark's sources, so that an output and its own source can be
        told from a pair of strangers.
        """
        data = self.surroundings.dataset
        found = read_split(self.surroundings, self.network, "features", split, indices, self.second)
        names = [f"{split}/{k}" for k in indices]
        ids = names if self.second else [*data.describe(split, indices).ids]
        return found.double().numpy(), ids
