"""`interference_<judge>`: how often does a concept get lost once others are asked for as well?"""

import torch
from torch import Tensor

from latentbench.metric import Figure
from latentbench.types import Samples
from metrics.networks.readings import FactorMetric, targets


class Interference(FactorMetric):
    """Share of concepts that show by themselves, minus the share that show together.

    A concept shows where its factor is read on the asked side of the middle. The pictures of one
    concept are made from the noise of those of all. 0: none is lost; below 0, company helps. A
    method that shows nothing scores 0 as well, so it has no direction: read it with `all_asked`.

    Source: "Compositional Visual Generation with Composable Diffusion Models", section 5, where
    accuracy is reported by the number of objects; here as a difference on one noise.

    Args:
        extractor: judge that reads factors.

    Example:
        >>> list(Interference().figures)
        ['interference_zoo1']
    """

    at = "main"
    needs = frozenset({"factors", "wanted", "alone"})
    source = "Compositional Visual Generation, section 5, as a difference on one noise"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "share of concepts that show alone minus that of those that show together"
        by = f"{what}, read by {self.extractor}"
        return {f"interference_{self.extractor}": Figure(by, "", -1.0, 1.0)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the share that is lost, of each row ``[b]``."""
        assert samples.wanted is not None and samples.alone is not None
        asked = targets(samples, type(self).__name__)[:, 0]
        wanted = samples.wanted[:, 0] > 0.5
        together = (self.reader.factors(samples.outputs[:, 0]) > 0.5) == wanted
        single = (self.reader.factors(samples.alone) > 0.5) == wanted[:, None]
        number = (asked.cumsum(-1) - 1).clamp(min=0)  # of the image that shows a factor alone
        alone = single.gather(1, number[:, None])[:, 0]
        lost = torch.where(asked, alone.float() - together.float(), 0).sum(-1)
        return {f"interference_{self.extractor}": (lost / asked.sum(-1)).double()}
