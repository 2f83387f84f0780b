"""`lpd_<judge>`: a learned perceptual distance."""

from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure, Surroundings
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader
from metrics.pairs.pairwise import SUFFIX, Against, Pairwise, References


class PerceptualDistance(Pairwise):
    """Learned perceptual distance per image: LPIPS' formula on the features of a judge.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", equation 1: unit-normalised channels, squared difference, weighted sum over layers,
    mean over pixels. Deviation: the trunk and its layer weights are trained in this suite, hence
    the name; figures are not comparable with `lpips`.

    Args:
        extractor: judge that gives the features.
        against: which images; each gives a column.

    Example:
        >>> list(PerceptualDistance(against=["truths", "sources"]).figures)
        ['lpd_zoo1', 'lpd_source_zoo1']
    """

    name = "lpd"
    source = "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, equation 1"

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        against: References = ("truths",),
    ) -> None:
        super().__init__(against=against)
        self.extractor = extractor
        what = f"learned perceptual distance, features of {extractor}"
        self.figure = Figure(what, low=0.0, higher_is_better=False)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)

    def column(self, kind: Against) -> str:
        """Return the figure's name, with the judge's."""
        return f"{self.name}{SUFFIX[kind]}_{self.extractor}"

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair."""
        return self.reader.distance(outputs, targets)
