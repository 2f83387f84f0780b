"""`ppl_lpd_<judge>`: perceptual path length with the distance of a judge."""

from abc import abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.statistics import add_note, mean_score
from latentbench.types import Samples, Score
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader

LOWEST, HIGHEST = 0.01, 0.99  # quantiles beyond which pairs are discarded


class PathLengthMetric(SampleMetric):
    """Base: d(x_0, x_eps) / eps^2 of each pair of images eps apart, without the outer percents.

    Pairs below the 1% or above the 99% quantile are discarded, the lower quantile rounded down to a
    pair and the upper one up, as in the authors' code: of up to 100 pairs none is. torchmetrics
    rounds both down, and drops the largest of few. Discarded pairs are NaN in the table, so that
    methods are compared by what is shown. Low values also come from blurred and from constant
    images: read it together with a distance between sets.
    """

    needs = frozenset({"strengths"})
    source: ClassVar[str] = "A Style-Based Generator Architecture, section 4.1"
    column: str

    @abstractmethod
    def distance(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Return the perceptual distance of each pair."""

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "perceptual distance over a small step of the latent, per squared step"
        return {self.column: Figure(what, low=0.0, higher_is_better=False)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the squared speed of each pair."""
        assert samples.strengths is not None
        if samples.outputs.shape[1] != 2:
            raise BadInput(
                f"{type(self).__name__} needs pairs of images a small step apart, got "
                f"{samples.outputs.shape[1]} outputs; take the path_length benchmark"
            )
        epsilon = samples.strengths[:, 1] - samples.strengths[:, 0]
        found = self.distance(samples.outputs[:, 0], samples.outputs[:, 1]).double()
        return {self.column: found / epsilon.double().square()}

    def table(self) -> dict[str, Tensor]:
        """Return the squared speed of each pair ``[rows, 1]``; NaN for those that are discarded."""
        found = self.measured()[self.column]
        return {self.column: found.where(inner(found), torch.nan)[:, None]}

    def compute(self) -> dict[str, Score]:
        """Return the mean over the pairs that are kept."""
        found = self.measured()[self.column]
        kept = inner(found)
        note = f"{int((~kept).sum())} of {len(found)} pairs discarded as outermost"
        rows = kept.nonzero().flatten().tolist()
        score = mean_score(found[rows], [self.seen.ids[k] for k in rows])
        return {self.column: add_note(score, note)}


class PerceptualPathLength(PathLengthMetric):
    """Perceptual path length with the learned distance of a judge, on whole images.

    Source: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial
    Networks", section 4.1. Deviation: the distance is trained in this suite, hence the name.

    Args:
        extractor: judge that gives the features.

    Example:
        >>> PerceptualPathLength().column
        'ppl_lpd_zoo1'
    """

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor, self.column = extractor, f"ppl_lpd_{extractor}"

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)

    def distance(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Return the judge's distance of each pair."""
        return self.reader.distance(a, b)


def inner(values: Float[Tensor, " n"]) -> Tensor:
    """Return which values lie between the 1% quantile, rounded down, and the 99%, rounded up.

    Example:
        >>> inner(torch.tensor([3.0, 1.0, 2.0])).tolist()
        [True, True, True]
    """
    low = torch.quantile(values, LOWEST, interpolation="lower")
    high = torch.quantile(values, HIGHEST, interpolation="higher")
    return (values >= low) & (values <= high)
