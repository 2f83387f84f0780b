"""`end_rmse` and `end_lpd_<judge>`: does a path begin and end with the asked images?"""

from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader
from metrics.pairs.pairwise import unit_range


class PathEnds(SampleMetric):
    """Distance of a path's first and last frame to the two asked images, mean over both.

    `end_rmse` is the root mean squared pixel error with images in [0, 1], `end_lpd` the judge's
    perceptual distance. Asked are two real images, and then this is the inversion's error, or what
    the model itself makes of two noises. A path that is smooth and ends elsewhere has left them
    behind: read it together with every figure of such a path.

    Source: this suite; AID evaluates generated ends only.

    Args:
        extractor: judge whose features give the perceptual distance.

    Example:
        >>> list(PathEnds().figures)
        ['end_rmse', 'end_lpd_zoo1']
    """

    needs = frozenset({"ends"})
    source = "distance of a path's ends to its inputs"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def figures(self) -> dict[str, Figure]:
        """Pixel and perceptual error."""
        what = "of a path's ends to the asked images"
        perceptual = f"learned distance of {self.extractor} {what}"
        return {
            "end_rmse": Figure(f"root mean squared error {what}", "", 0.0, 1.0, False),
            f"end_lpd_{self.extractor}": Figure(perceptual, "", 0.0, None, False),
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each path ``[b]``."""
        assert samples.ends is not None
        found, wanted = samples.outputs[:, [0, -1]], samples.ends
        error = (unit_range(found) - unit_range(wanted)).square().mean((2, 3, 4)).sqrt().mean(1)
        distance = self.reader.distance(found, wanted).double().mean(1)
        return dict(zip(self.figures, (error, distance), strict=True))
