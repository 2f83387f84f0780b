"""`bg_lpd_<judge>`: the learned distance to the source, the edited region hidden."""

from torch import Tensor

from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.pairs.masks import hidden_edit, lacks_background
from metrics.pairs.perceptual import PerceptualDistance


class BackgroundPerceptual(PerceptualDistance):
    """Learned perceptual distance of output and source, with the mask mid grey in both.

    The twin, with a judge of this suite, of PIE-Bench's background LPIPS. Rows whose mask covers
    the whole image are left out.

    Args:
        extractor: judge that gives the features.

    Example:
        >>> list(BackgroundPerceptual().figures)
        ['bg_lpd_zoo1']
    """

    name = "bg_lpd"
    source = "PnP Inversion (PIE-Bench), with a learned distance of this suite"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor, against=("sources",))
        self.needs = frozenset({"sources", "masks"})

    def column(self, kind: str) -> str:
        """Return the figure's name: it is against the source always."""
        del kind
        return f"bg_lpd_{self.extractor}"

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distance of each output; NaN where there is no background."""
        assert samples.masks is not None
        absent = lacks_background(samples.masks)[:, None]
        found = super().values(hidden_edit(samples))
        return {name: value.masked_fill(absent, float("nan")) for name, value in found.items()}
