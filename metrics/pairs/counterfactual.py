"""`counterfactual_*`: the distance of an edit to the exact image that a perfect edit would give."""

from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader

IDLE = "pixel error of the source"


class CounterfactualError(SampleMetric):
    """Error against the true counterfactual: what was asked, and all that should have stayed.

    `counterfactual_rmse` is the root mean squared pixel error, images in [0, 1];
    `counterfactual_lpd` the learned perceptual distance; `counterfactual_ratio` the sum over images
    of the pixel error / that of the untouched sources: below 1 is better than doing nothing.

    Source: this suite; possible since the data set renders counterfactuals.

    Args:
        extractor: judge whose features give the perceptual distance.

    Example:
        >>> list(CounterfactualError().figures)
        ['counterfactual_rmse', 'counterfactual_ratio', 'counterfactual_lpd_zoo1']
    """

    version = 2
    at = "main"
    needs = frozenset({"truths", "sources"})
    source = "error against the rendered counterfactual"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def figures(self) -> dict[str, Figure]:
        """Pixel error, the same as a share of doing nothing, and perceptual distance."""
        to = "to the true counterfactual"
        figures = {
            "rmse": Figure(f"pixel error {to}", low=0.0, high=1.0),
            "ratio": Figure(f"pixel error {to} / that of the untouched source", low=0.0),
            f"lpd_{self.extractor}": Figure(f"learned perceptual distance {to}", low=0.0),
        }
        return {
            f"counterfactual_{name}": Figure(f.description, f.unit, f.low, f.high, False)
            for name, f in figures.items()
        }

    @property
    def ratios(self) -> dict[str, str]:
        """The pixel error as a share of the sources'."""
        return {"counterfactual_ratio": IDLE}

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each output ``[b, s]``, and the pixel error of the source."""
        assert samples.truths is not None and samples.sources is not None
        sources = samples.sources[:, None].expand_as(samples.truths)
        error, idle = (_rmse(x - samples.truths) for x in (samples.outputs, sources))
        perceptual = self.reader.distance(samples.outputs, samples.truths)
        return dict(zip((*self.figures, IDLE), (error, error, perceptual, idle), strict=True))


def _rmse(gap: Float[Tensor, "b s 3 h w"]) -> Float[Tensor, "b s"]:
    """Return the root mean square of differences of images in [-1, 1], in units of [0, 1]."""
    return (gap.double() / 2).square().mean((2, 3, 4)).sqrt()
