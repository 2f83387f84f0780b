"""`saturated`: which share of an image is at the ends of its range?"""

from torch import Tensor

from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples

END = 1 - 1e-6


class Saturation(SampleMetric):
    """Share of pixel values at -1 or 1, minus that of the source.

    Outputs are clamped before they are measured, which hides a sampler that diverges: its values
    pile up at the ends.

    Source: this suite's companion of shifted noise.

    Example:
        >>> list(Saturation().figures)
        ['saturated']
    """

    needs = frozenset({"sources"})
    source = "share of clamped values"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "share of values at the ends of the range, minus the source's"
        return {"saturated": Figure(what, "", -1.0, 1.0, False)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the share of each output ``[b, s]``."""
        assert samples.sources is not None
        source = (samples.sources.abs() >= END).double().mean((1, 2, 3))
        outputs = (samples.outputs.abs() >= END).double().mean((2, 3, 4))
        return {"saturated": outputs - source[:, None]}
