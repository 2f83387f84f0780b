"""`restoration_error_image`: how far is a restored image from the true one?"""

from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from metrics.networks.reader import Reader

JUDGE = "zoo1"
SMALLEST = 0.02  # of what the given image has: a smaller difference does not matter
GIVEN = "distance of the given image to the true one"


class RestorationError(SampleMetric):
    """Perceptual distance of the output to the true image, as a share of the given image's.

    The root of the perceptual distance (which is a square); the sum over images / the same sum for
    the images as they were given, damaged. 0 is the true image, 1 is what doing nothing gives,
    above 1 is harm. It is over the whole image, so what a method loses elsewhere counts.

    The judge is zoo1, always: so the column needs no judge's name.

    Source: this suite.

    Example:
        >>> list(RestorationError().figures)
        ['restoration_error_image']
    """

    at = "main"
    needs = frozenset({"truths", "sources"})
    fixed_networks = frozenset({JUDGE})
    source = "distance to the true image / distance of the given image to it"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"distance of the output to the true image / that of the given image, {JUDGE}"
        return {
            "restoration_error_image": Figure(what, "", 0.0, None, False, smallest=SMALLEST),
        }

    @property
    def ratios(self) -> dict[str, str]:
        """It is a share of the given image's distance."""
        return dict.fromkeys(self.figures, GIVEN)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(JUDGE, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distances of outputs and of given images ``[b, s]``."""
        assert samples.truths is not None and samples.sources is not None
        given = samples.sources[:, None].expand_as(samples.truths)
        pairs = {"restoration_error_image": samples.outputs, GIVEN: given}
        return {
            name: self.reader.distance(images, samples.truths).clamp_min(0).sqrt()
            for name, images in pairs.items()
        }
