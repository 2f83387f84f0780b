"""`mid_manifold_<judge>`: how far the middle of a path is from real images."""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, SetSize
from latentbench.data.dataset import Dataset, Split
from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader, read_split
from metrics.sets.feature_sets import too_few


class MiddleManifoldDistance(SampleMetric):
    """Mean distance of a path's middle frame to its k nearest real images, in judge features.

    A value per path, so that two methods can be compared on the same paths, which the kernel
    distance of the whole set (`kd_inner_real`) does not allow at few paths. `mid_manifold_ratio` is
    that distance over the mean of the two ends': 1 where the middle is as near to real images as
    the ends are. Of an even number of frames the later of the two middle ones counts.

    Source: k-nearest-neighbour radius of Kynkaanniemi et al., "Improved Precision and Recall Metric
    for Assessing Generative Models", section 3, as a distance in place of a test.

    Args:
        extractor: judge that gives the features.
        k: neighbours.
        reference_split: split of the real images, whose last ones are taken.
        reference_n: number of real images, fewer where the split is smaller.

    Example:
        >>> list(MiddleManifoldDistance().figures)
        ['mid_manifold_zoo1', 'mid_manifold_ratio_zoo1']
    """

    source = "Improved Precision and Recall, section 3: k-nearest-neighbour radius, as a distance"

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        k: Count = 5,
        reference_split: Split = "test",
        reference_n: SetSize = 2048,
    ) -> None:
        super().__init__()
        self.extractor, self.k = extractor, k
        self.reference_split, self.reference_n = reference_split, reference_n

    @property
    def figures(self) -> dict[str, Figure]:
        """The distance, and its ratio to the ends'."""
        what = f"distance of the middle frame to its nearest real images, {self.extractor}"
        ratio = f"{what} / that of the path's ends"
        return {
            f"mid_manifold_{self.extractor}": Figure(what, low=0.0, higher_is_better=False),
            f"mid_manifold_ratio_{self.extractor}": Figure(ratio, low=0.0, higher_is_better=False),
        }

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: no image in the reference split."""
        return super().unfed(dataset) or too_few(dataset, self.reference_split, 1)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge, and read the real images."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)
        size = surroundings.dataset.size(self.reference_split)
        last = range(max(0, size - self.reference_n), size)
        real = read_split(surroundings, self.reader, "features", self.reference_split, last)
        self.real = real.double()

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each path ``[b]``."""
        frames = samples.outputs
        picked = frames[:, [0, frames.shape[1] // 2, -1]]
        first, middle, last = self._distance(picked).unbind(1)
        ends = (first + last) / 2
        ratio = (middle / ends).where(ends > 0, torch.nan)
        return dict(zip(self.figures, (middle, ratio), strict=True))

    def _distance(self, images: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t"]:
        """Return the mean distance to the k nearest real images."""
        features = self.reader.features(images).double().flatten(0, 1)
        gaps = (features[:, None] - self.real).square().sum(-1).sqrt()
        nearest = gaps.topk(min(self.k, len(self.real)), largest=False).values
        return nearest.mean(1).unflatten(0, images.shape[:2])
