"""`strip_correlation_near_<judge>`, `..._far_...`: how far along a strip are factors shared?"""

import numpy as np
import torch
from torch import Tensor

from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples, Score
from metrics.codes.code_metric import Mask, jackknifed
from metrics.jackknife import Array
from metrics.strips.strip_metric import StripMetric

DESCRIBED = 4096  # held-out strips that say what a word means on average
OFF = "off/"  # columns of what was seen


class StripCorrelation(StripMetric):
    """Correlation of shared factors in two windows of a strip, over strips, near and far apart.

    A caption leaves room: "amber" is a range of hues. What a factor has beyond the mean of its word
    is what windows can only have from each other. `near` takes windows side by side, `far` the
    first and the last. True strips have the same in both, up to what the judge misreads; strips
    whose windows learn of each other through their overlap alone lose it with the distance.
    Factors of things that are there or not are left out: their words leave no room.

    Neither has a direction: one face along the strip, or a bare background, is read alike
    everywhere and has more than true strips. Beside `strip_error` they say how far agreement
    reaches.

    Source: this suite.

    Intervals: the jackknife over strips, from 20 on.

    Args:
        extractor: the judge.

    Example:
        >>> list(StripCorrelation().figures)
        ['strip_correlation_near_zoo1', 'strip_correlation_far_zoo1']
    """

    fewest = 3

    @property
    def figures(self) -> dict[str, Figure]:
        """The two figures."""
        what = f"correlation of shared factors beyond the caption, read by {self.extractor}, of"
        return {
            self._named(f"strip_correlation_{name}"): Figure(f"{what} {which}", "", -1.0, 1.0)
            for name, which in (("near", "neighbours"), ("far", "first and last windows"))
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges, and the mean of each word."""
        super().prepare(surroundings)
        data = surroundings.dataset
        known = data.describe("calibration", range(min(DESCRIBED, data.size("calibration"))))
        assert known.factors is not None and known.prompts is not None
        self.graded = [k for k, n in enumerate(data.factor_names) if n not in data.things]
        words = [prompt.split() for prompt in known.prompts]
        self.mean = {
            (k, word): float(known.factors[[w[k] == word for w in words], k].mean())
            for k in self.graded
            for word in {w[k] for w in words}
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return what each window has beyond the caption ``[b, k]``, by factor."""
        assert samples.prompts is not None
        read = self.read(samples.headline(self.at)[:, 0]).factors.double()
        found = {}
        for k in self.graded:
            asked = [self.mean[k, prompt.split()[k]] for prompt in samples.prompts]
            column = read[..., self.shared[k]]
            found[f"{OFF}{k}"] = column - torch.tensor(asked, dtype=torch.float64)[:, None]
        return found

    def compute(self) -> dict[str, Score]:
        """Return the correlations of the set."""
        order, seen = self.seen.order(), self.measured()
        ids = [self.seen.ids[k] for k in order]
        off = torch.stack([seen[f"{OFF}{k}"][order] for k in self.graded], 2).numpy()
        n = len(set(ids))
        if n < self.fewest:
            return dict.fromkeys(self.figures, Score(None, n, note=f"needs {self.fewest} strips"))

        def statistic(keep: Mask) -> dict[str, float]:
            rows = off[keep]
            pairs = {"near": (rows[:, :-1], rows[:, 1:]), "far": (rows[:, :1], rows[:, -1:])}
            return {
                self._named(f"strip_correlation_{name}"): correlation(*both)
                for name, both in pairs.items()
            }

        return jackknifed(statistic, ids)


def correlation(first: Array, second: Array) -> float:
    """Return the correlation of pairs ``[n, p, f]``, the mean over factors.

    Example:
        >>> x = np.arange(6.0).reshape(3, 2, 1)
        >>> round(correlation(x, -x), 3)
        -1.0
    """
    a, b = (x - x.mean((0, 1)) for x in (first, second))
    size = np.sqrt((a**2).sum((0, 1)) * (b**2).sum((0, 1)))
    with np.errstate(invalid="ignore"):
        return float(np.mean((a * b).sum((0, 1)) / size))
