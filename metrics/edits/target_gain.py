"""`target_gain_<judge>`: how much of the asked change an edit makes."""

from torch import Tensor

from latentbench.metric import Figure
from latentbench.types import Samples
from metrics.networks.readings import FactorMetric


class TargetGain(FactorMetric):
    """Change of the target factor in the asked direction, divided by the asked change.

    Read by a judge, relative to the source:
    0 is no change, 1 the whole change, negative the wrong way. The target is where
    `Samples.wanted` differs from `Samples.factors`; of several targets the mean counts.

    Source: known-factor twin of the re-scoring of Shen et al., "Interpreting the Latent Space of
    GANs for Semantic Face Editing", section 3.2.

    Args:
        extractor: judge that reads factors; not the one that matched the strengths.

    Example:
        >>> list(TargetGain().figures)
        ['target_gain_zoo1']
    """

    version = 2
    needs = frozenset({"factors", "wanted"})
    source = "change of the target factor / asked change, as read by a judge"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"share of the asked change of the target factor, read by {self.extractor}"
        return {f"target_gain_{self.extractor}": Figure(what, higher_is_better=True)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the gain of each output ``[b, s]``."""
        return {f"target_gain_{self.extractor}": self.read_edit(samples).gain()}
