"""Tests: which methods a figure tells apart, on the same images, and which it does not."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from latentbench.errors import BadInput
from latentbench.statistics import (
    FEWEST,
    Array,
    Mean,
    bootstrap_interval,
    crossed_mean,
    draws,
    jackknife_mean,
)

FLIPS = 20_000
MOST_EXACT = 15  # clusters up to which all sign flips are counted
LEVEL = 0.05  # of a test, after correction for the number of pairs
POWER = 0.8  # at which a difference counts as detectable


@dataclass(frozen=True)
class Comparison:
    """How two methods differ on the same images.

    Args:
        difference: mean of first minus second.
        error: its standard error.
        freedom: degrees of freedom of the error.
        low: lower end of the difference's 95% interval, or None where none is valid.
        high: upper end.
        p: two-sided p-value, not corrected for the number of comparisons.
        smallest_p: the smallest p-value that so few images can give.
        n: images (clusters) that both have a value for.
        wins: share of them where the first is larger, ties counting one half; None for figures
            of sets.
    """

    difference: float
    error: float
    freedom: float
    low: float | None
    high: float | None
    p: float
    smallest_p: float
    n: int
    wins: float | None = None


def compare(gaps: Array) -> Comparison | None:
    """Compare two methods by their paired differences, or return None below two images.

    One seed: sign-flip permutation test over images and bootstrap interval, which say nothing
    about other seeds. Several seeds: t-test and t-interval for seeds and images drawn at random,
    see `latentbench.statistics.crossed_mean`.

    Args:
        gaps: first minus second per seed and image ``[s, n]``, all finite.

    Example:
        >>> compare(np.ones((1, 10))).wins
        1.0
    """
    s, n = gaps.shape
    if n < 2:
        return None
    mean, by_image = crossed_mean(gaps), gaps.mean(0)
    wins = float(((by_image > 0) + 0.5 * (by_image == 0)).mean())
    if s > 1:
        return _by_t(mean, n, wins)
    low, high = bootstrap_interval(gaps[0], np.ones(n)) if n >= FEWEST else (None, None)
    p, smallest = sign_flip(gaps[0]), smallest_p(n)
    return Comparison(mean.value, mean.error, mean.freedom, low, high, p, smallest, n, wins)


def compare_sets(gaps: Array, replicates: Array, n: int) -> Comparison:
    """Compare two methods by a figure of whole sets, from jackknife replicates of the difference.

    Both sets must consist of the same images in the same groups.

    Args:
        gaps: first minus second per seed ``[s]``.
        replicates: the same without each group of images ``[s, groups]``.
        n: images.
    """
    return _by_t(jackknife_mean(gaps, replicates), n, None)


def _by_t(mean: Mean, n: int, wins: float | None) -> Comparison:
    low, high = mean.interval()
    return Comparison(mean.value, mean.error, mean.freedom, low, high, mean.p(), 0.0, n, wins)


def sign_flip(gaps: Array) -> float:
    """Return the two-sided permutation p-value of paired differences, one per cluster.

    Exact up to 15 clusters; above, 20,000 seeded flips with the usual +1 in both counts.

    Example:
        >>> sign_flip(np.ones(3))
        0.25
    """
    n = len(gaps)
    limit = abs(gaps.sum()) * (1 - 1e-12)
    if n <= MOST_EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ gaps) >= limit).mean())
    total, hits = gaps.sum(), 0
    for flipped in draws(2, n, FLIPS, np.int8):
        hits += int((np.abs(total - 2 * (flipped @ gaps)) >= limit).sum())
    return (hits + 1) / (FLIPS + 1)


def smallest_p(n: int) -> float:
    """Return the smallest p-value that `sign_flip` can give with n clusters."""
    return 2.0 ** (1 - n) if n <= MOST_EXACT else 1 / (FLIPS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, after Holm's step-down method.

    Raises:
        BadInput: a p-value outside 0..1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise BadInput(
            f"holm takes p-values in 0..1, got {list(p_values)}; leave undefined ones out"
        )
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    corrected = np.empty_like(stepped)
    corrected[order] = stepped
    return corrected.tolist()


class Ranking:
    """What one figure says about the order of the rows of a board, and what it leaves open.

    Every pair is tested and the p-values are corrected together, so that the chance of any false
    difference is at most 5%, whichever row happens to look best.

    Args:
        values: the figure of each row, None where it has none.
        pairs: (i, j) with i < j -> how row i differs from row j; pairs that cannot be compared
            are absent and count as not told apart.
        higher_is_better: direction.
    """

    def __init__(
        self,
        values: Sequence[float | None],
        pairs: Mapping[tuple[int, int], Comparison],
        higher_is_better: bool,
    ) -> None:
        self.values, self.pairs, self.higher_is_better = values, pairs, higher_is_better
        self.corrected = dict(zip(pairs, holm([c.p for c in pairs.values()]), strict=True))
        sign = -1 if higher_is_better else 1
        known = {k: sign * value for k, value in enumerate(values) if value is not None}
        self.order = sorted(known, key=known.__getitem__)

    def apart(self, i: int, j: int) -> bool:
        """Return whether the two rows differ: corrected p below 5%, and no 0 in the interval."""
        pair = (min(i, j), max(i, j))
        if pair not in self.pairs or self.corrected[pair] >= LEVEL:
            return False
        low, high = self.pairs[pair].low, self.pairs[pair].high
        return low is not None and high is not None and not low <= 0 <= high

    def better(self, i: int, j: int) -> bool:
        """Return whether row i is told apart from row j and is the better one."""
        if not self.apart(i, j):
            return False
        first = self.pairs[min(i, j), max(i, j)].difference > 0
        return (first == self.higher_is_better) == (i < j)

    def ranks(self) -> dict[int, tuple[int, int]]:
        """Return the ranks that each row may have, best and worst; all hold together with 95%.

        Source: Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks with Applications to
        Mobility across Neighbourhoods and Academic Achievement across Countries": a row is behind
        those that are better with significance, and before those that are worse. Ranking anew in
        each bootstrap draw is not used: where methods are close it misses the true rank far more
        often than 5% (docs/statistics.md).
        """
        return {
            i: (
                1 + sum(self.better(j, i) for j in self.order),
                len(self.order) - sum(self.better(i, j) for j in self.order),
            )
            for i in self.order
        }

    def letters(self) -> dict[int, str]:
        """Return the compact letter display: rows that share a letter are not told apart.

        Source: Piepho, "An Algorithm for a Letter-Based Representation of All-Pairwise
        Comparisons": insert and absorb.
        """
        groups = [frozenset(self.order)]
        for i, j in combinations(self.order, 2):
            if self.apart(i, j):
                both = [g for g in groups if {i, j} <= g]
                parts = [g - {k} for g in both for k in (i, j)]
                kept = {*(g for g in groups if g not in both), *parts}
                groups = [g for g in kept if not any(g < other for other in kept)]
        place = {row: k for k, row in enumerate(self.order)}
        groups.sort(key=lambda g: sorted(place[row] for row in g))
        names = [string.ascii_lowercase[k % 26] * (1 + k // 26) for k in range(len(groups))]
        return {
            i: "".join(name for name, g in zip(names, groups, strict=True) if i in g)
            for i in self.order
        }

    def detectable(self) -> float | None:
        """Return the difference that would be found with 80% power between two typical rows.

        (t(1 - 0.05 / 2m, df) + t(0.8, df)) x standard error of a paired difference, the median
        over the m pairs; m corrects for their number. None where there are no pairs, or where so
        few images cannot give a p-value below 0.05 / m.
        """
        m = len(self.pairs)
        if not m or min(c.smallest_p for c in self.pairs.values()) * m >= LEVEL:
            return None
        sizes = [
            (stats.t.ppf(1 - LEVEL / (2 * m), c.freedom) + stats.t.ppf(POWER, c.freedom)) * c.error
            for c in self.pairs.values()
        ]
        return float(np.median(sizes))
