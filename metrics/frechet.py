"""`fd_<judge>`: the Frechet distance of Gaussians fitted to features."""

import numpy as np
from cleanfid.fid import frechet_distance

from latentbench.metric import Figure
from latentbench.statistics import add_note, jackknife
from latentbench.types import Score
from metrics.features import GROUPS, Array, FeatureSets, groups, too_few

PER_DIMENSION = 2  # images per feature dimension, below which a covariance says nothing


class FrechetDistance(FeatureSets):
    """Frechet distance of the outputs to real images, by clean-fid's own `frechet_distance`.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", section 3; code of
    clean-fid. Covariances have N - 1 in the denominator.

    The figure is biased upwards by about (d^2 / 2 + 5 d / 2) / N times the features' variance,
    so it is comparable at equal n only, and the note gives the distance of real to real images at
    the same n. Below 2 images per feature dimension there is no value: use the kernel distance.

    The percentile bootstrap is not valid here: drawing images twice adds a second bias. The
    interval is the jackknife over 10 groups of both sets; it covers the expected figure at this n.
    Simulated coverage with 8 and 32 Gaussian features, 2.5 to 20 images per dimension: 95 to
    100%, widest where the sets are alike.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.

    Example:
        >>> metric = FrechetDistance(extractor="zoo1")
        >>> metric.column
        'fd_zoo1'
    """

    prefix = "fd"
    source = "GANs Trained by a Two Time-Scale Update Rule, section 3; clean-fid"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"Frechet distance of outputs to real images, features of {self.extractor}"
        return {self.column: Figure(what, low=0.0, higher_is_better=False)}

    def compute(self) -> dict[str, Score]:
        """Return the distance; None where there are too few images for it."""
        outputs, ids = self.collected()
        real, real_ids = self.reference()
        n, few = len(set(ids)), min(len(set(ids)), len(real))
        if few < PER_DIMENSION * real.shape[1]:
            return {self.column: add_note(_refusal(n, few, real.shape[1]), self.remark())}
        try:
            score = frechet_score((outputs, ids), (real, real_ids))
        except ValueError as error:  # the root of a covariance product that is far from real
            return {
                self.column: add_note(Score(None, n, note=f"clean-fid: {error}"), self.remark())
            }
        return {self.column: add_note(score, self._floor(len(ids), score), self.remark())}

    def _floor(self, n: int, score: Score) -> str:
        other = self.other_real(n)
        if other is None or score.value is None:
            return "floor unknown: the split has too few real images"
        floor = distance(other[0], self.reference()[0])
        near = ", within 3 times of it: compare kernel distances" if score.value < 3 * floor else ""
        return f"real against real at this n: {floor:.4g}{near}"


def frechet_score(first: tuple[Array, list[str]], second: tuple[Array, list[str]]) -> Score:
    """Return the distance of two sets of (features, ids), with its jackknife interval."""
    (a, a_ids), (b, b_ids) = first, second
    n, value, why_not = len(set(a_ids)), distance(a, b), too_few(a_ids, b_ids)
    if why_not:
        return Score(value, n, note=why_not)
    one, other = groups(a_ids), groups(b_ids)
    replicates = [distance(a[one != k], b[other != k]) for k in range(GROUPS)]
    return Score(value, n, *jackknife(value, replicates))


def distance(a: Array, b: Array) -> float:
    """Return the Frechet distance of features ``[n, d]`` and ``[m, d]``.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> abs(distance(x, x)) < 1e-6
        True
    """
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    return float(frechet_distance(*moments[0], *moments[1]))


def _refusal(n: int, few: int, d: int) -> Score:
    least = PER_DIMENSION * d
    return Score(None, n, note=f"{few} images for {d} feature dimensions, at least {least} needed; "
                 "the kernel distance is valid here")  # fmt: skip
