"""`leak_<judge>`: how much an edit changes that was not asked for."""

from dataclasses import replace

import torch
from torch import Tensor

from latentbench.bounds import NotNegative
from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from latentbench.zoo.judges import JudgeName, reliability
from metrics.networks.readings import FactorMetric, Readings, read_answers

MOVED = "gain and leak"
PERFECT = "leak of the true counterfactuals"


class Leak(FactorMetric):
    """Mean absolute change of the factors that the edit does not name, in units of their range.

    Read by a judge, relative to the source: what inversion loses counts.
    A change of less than `threshold` times the judge's root mean squared error on held-out faces
    counts as none in `leak`; `leak_raw` counts all. Factors are weighted by how well the judge
    reads them, as its card says. `selectivity` is the sum of gains
    over images / the sum of |gain| + `leak_raw`: negative for an edit that goes the wrong way.

    A perfect edit does not read as exactly 0, since a hat hides hair: where the true
    counterfactuals are known, the note gives what they read.

    Source: "disentanglement with known factors", after Wu et al., "StyleSpace Analysis",
    attribute dependency.

    Args:
        extractor: judge that reads factors; not the one that matched the strengths.
        threshold: changes up to this many of the judge's errors count as none.

    Example:
        >>> list(Leak().figures)
        ['leak_zoo1', 'leak_raw_zoo1', 'selectivity_zoo1']
    """

    version = 2
    needs = frozenset({"factors", "wanted"})
    source = "StyleSpace Analysis, attribute dependency, with known factors"

    def __init__(self, *, extractor: JudgeName = "zoo1", threshold: NotNegative = 2.0) -> None:
        super().__init__(extractor=extractor)
        self.threshold = threshold

    @property
    def figures(self) -> dict[str, Figure]:
        """Leak with and without threshold, and selectivity."""
        what = f"mean change of factors that were not asked for, read by {self.extractor}"
        share = "sum of gains / sum of |gain| + leak_raw"
        figures = {
            "leak": Figure(f"{what}, above its error", low=0.0, high=1.0, higher_is_better=False),
            "leak_raw": Figure(what, low=0.0, high=1.0, higher_is_better=False),
            "selectivity": Figure(share, low=-1.0, high=1.0, higher_is_better=True),
        }
        return {f"{name}_{self.extractor}": figure for name, figure in figures.items()}

    @property
    def ratios(self) -> dict[str, str]:
        """Selectivity is a share of all that moves."""
        return {f"selectivity_{self.extractor}": MOVED}

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge and measure its error."""
        super().prepare(surroundings)
        self.blur = self.threshold * self.sharpness().rmse
        self.reliability = reliability(self.extractor)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each output ``[b, s]``."""
        read = self.read_edit(samples)
        gain, leak = read.gain(), read.leak(self.blur, self.reliability)
        raw = read.leak(torch.zeros_like(self.blur), self.reliability)
        found = dict(zip(self.figures, (leak, raw, gain), strict=True))
        found[MOVED] = gain.abs() + raw
        if samples.truths is not None and samples.sources is not None:
            found[PERFECT] = self._of_truths(samples.truths, samples.sources, read)
        return found

    def compute(self) -> dict[str, Score]:
        """Return the scores; the note of the leak gives what perfect edits read."""
        scores, leak = super().compute(), f"leak_{self.extractor}"
        perfect = self.mean_of(PERFECT).value if PERFECT in self.measured() else None
        if perfect is not None:
            scores[leak] = add_note(scores[leak], f"true counterfactuals read {perfect:.4g}")
        return scores

    def _of_truths(self, truths: Tensor, sources: Tensor, read: Readings) -> Tensor:
        """Return the leak of the true counterfactuals ``[b, s]``, relative to the sources."""
        change = read_answers(self.reader, truths) - self.reader.factors(sources)[:, None]
        return replace(read, change=change).leak(self.blur, self.reliability)
