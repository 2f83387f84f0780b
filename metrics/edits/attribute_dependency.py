"""`mean_ad_<judge>` and `max_ad_<judge>`: how far do other attributes move with an edited one?"""

import torch
from torch import Tensor

from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from metrics.networks.readings import FactorMetric

BIN = 0.5  # width of the curve's bins, in standard deviations of the target
BINS = 6
MOVED = "change of the target"


class AttributeDependency(FactorMetric):
    """Change of the other factors under an edit, each in its standard deviation over faces.

    Source: Wu et al., "StyleSpace Analysis", section 5.2: AD of an edit of attribute t is the mean
    (`mean_ad`) or the largest (`max_ad`) over other attributes i of |change of i| / sigma_i, as a
    function of |change of t| / sigma_t; here with known factors read by a judge for the logits of
    classifiers. The score is that of the headline output, where methods have an equal change of
    the target; the note gives mean AD over the strength curve, in bins of the target's change.

    Args:
        extractor: judge that reads factors; not the one that matched the strengths.

    Example:
        >>> list(AttributeDependency().figures)
        ['mean_ad_zoo1', 'max_ad_zoo1']
    """

    version = 2
    needs = frozenset({"factors", "wanted"})
    source = "StyleSpace Analysis, section 5.2, with known factors"

    @property
    def figures(self) -> dict[str, Figure]:
        """Mean and largest dependency."""
        what = f"change of a factor that was not asked for, in sd, read by {self.extractor}"
        return {
            f"mean_ad_{self.extractor}": Figure(f"mean {what}", "sd", 0.0, None, False),
            f"max_ad_{self.extractor}": Figure(f"largest {what}", "sd", 0.0, None, False),
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge and measure how factors vary."""
        super().prepare(surroundings)
        self.std = self.sharpness().std

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each output ``[b, s]``, and the change of its target."""
        read = self.read_edit(samples)
        change = read.change.abs() / self.std
        others = torch.where(read.target, torch.nan, change)
        targets = torch.where(read.target, change, torch.nan)
        largest = torch.where(read.target, -1.0, change).amax(-1)
        values = (others.nanmean(-1), largest, targets.nanmean(-1))
        return dict(zip((*self.figures, MOVED), values, strict=True))

    def compute(self) -> dict[str, Score]:
        """Return both scores; the note of the mean holds the curve."""
        scores, name = super().compute(), f"mean_ad_{self.extractor}"
        order = self.seen.order()
        moved, mean = (self.measured()[k][order].flatten() for k in (MOVED, name))
        return scores | {name: add_note(scores[name], curve(moved, mean))}


def curve(moved: Tensor, dependency: Tensor) -> str:
    """Return the mean dependency in bins of the target's change, in words.

    Args:
        moved: change of the target, in standard deviations ``[n]``.
        dependency: change of the others ``[n]``.

    Example:
        >>> curve(torch.tensor([0.1, 0.2, 0.7]), torch.tensor([1.0, 3.0, 4.0]))
        'by change of the target in sd: below 0.5: 2, below 1: 4'
    """
    places = (moved / BIN).floor().long().clamp(max=BINS - 1)
    parts = []
    for k in range(BINS):
        inside = dependency[places == k]
        if len(inside):
            edge = f"below {BIN * (k + 1):g}" if k < BINS - 1 else f"from {BIN * k:g}"
            parts.append(f"{edge}: {float(inside.mean()):.3g}")
    return f"by change of the target in sd: {', '.join(parts)}"
