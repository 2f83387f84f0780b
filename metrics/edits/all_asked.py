"""`all_asked_<judge>`: does an image show everything that was asked for?"""

import torch
from jaxtyping import Bool
from torch import Tensor

from latentbench.intervals import Kind
from latentbench.metric import Figure
from latentbench.types import Samples
from metrics.networks.readings import FactorMetric, targets


class AllAsked(FactorMetric):
    """Share of images on which every asked factor is read on the asked side of the middle.

    It says nothing of what else the image shows: one face for all may have it all. Read it with
    `edit_error`. Of several answers (`Samples.answers`) any one will do.

    Source: joint accuracy of "Compositional Visual Generation with Composable Diffusion Models",
    section 5, with known factors read by a judge for classifiers.

    Args:
        extractor: judge that reads factors.

    Example:
        >>> list(AllAsked().figures)
        ['all_asked_zoo1']
    """

    at = "main"
    needs = frozenset({"factors", "wanted"})
    source = "Compositional Visual Generation, section 5, with known factors"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"share of images that show all that was asked, read by {self.extractor}"
        return {f"all_asked_{self.extractor}": Figure(what, "", 0.0, 1.0, True, Kind.RATE)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return 1 where all is read as asked, else 0, of each output ``[b, s]``."""
        read = self.reader.factors(samples.outputs) > 0.5
        shown = [self._all(one, read) for one in samples.answers()]
        return {f"all_asked_{self.extractor}": torch.stack(shown).any(0).float()}

    def _all(self, samples: Samples, read: Bool[Tensor, "b s f"]) -> Bool[Tensor, "b s"]:
        """Return whether all that one answer asks is read."""
        assert samples.wanted is not None
        asked = targets(samples, type(self).__name__)
        return torch.where(asked, read == (samples.wanted > 0.5), True).all(-1)
