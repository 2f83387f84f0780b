"""Intervals and p-values of a figure from independent units: the one place where they are chosen.

`docs/statistics.md` holds the rule for each kind of figure, and the coverage that was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]

LEVEL = 0.05  # share of intervals that may miss the truth
NORMAL = float(special.ndtri(1 - LEVEL / 2))  # quantile of the normal law
FEWEST = 8  # units below which a mean has no interval
FEWEST_APART = 5  # units that must differ from the most common value
TIED = 0.25  # share of units with one value from which the values count as tied
SMALL_SAMPLE = 6.0  # the skewness of n units is enlarged by 1 + 6 / n
ROUNDING = 1e-12  # spread / size below which units are one value


class Kind(StrEnum):
    """What a figure is made of, which decides its interval."""

    MEAN = "mean"  # mean over rows
    RATE = "rate"  # share of rows; each row is 0 or 1
    SET = "set"  # statistic of a whole set, by a jackknife over groups of images


@dataclass(frozen=True)
class Units:
    """Independent values whose mean is a figure, one per image or path.

    The interval joins two: Student's t, and Hall's, which corrects it for skewness. The first holds
    for symmetric laws with heavy tails, the second for skewed ones. The skewness of few values is
    too small, so it is enlarged by 1 + 6 / n. Where a quarter of the values or more are the same,
    as for figures with many zeros, Hall's interval is taken alone and unenlarged; the union would
    hold too often. The p-value is the larger of the two, and never below 2 / 2^m for m values other
    than 0, the smallest that a sign-flip test can give.

    Source: Hall, "On the Removal of Skewness by Transformation", the cubic transformation, with
    the t law's quantiles for the normal law's. Deviations: the union and the enlarged skewness.

    Args:
        values: one per unit ``[n]``, all finite.
        common: number of units that share the most common value; counted if not given.

    Example:
        >>> low, high = Units(np.arange(9.0)).interval()
        >>> round(low, 2), round(high, 2)
        (1.89, 6.11)
    """

    values: Array
    common: int = -1

    def __post_init__(self) -> None:
        if self.common < 0:
            object.__setattr__(self, "common", _most_common(self.values))

    @property
    def n(self) -> int:
        """Number of units."""
        return len(self.values)

    @property
    def value(self) -> float:
        """The figure: the mean."""
        return float(self.values.mean())

    def why_no_interval(self) -> str:
        """Return why no interval would hold, in words, or an empty string."""
        if self.n < FEWEST:
            return f"{self.n} images, at least {FEWEST} needed"
        apart = self.n - self.common
        if apart < FEWEST_APART:
            return (
                f"{self.common} of {self.n} images read the same, at least {FEWEST_APART} others "
                "needed"
            )
        return "all images read the same" if self._spread() == 0 else ""

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval that misses the truth with probability `level`."""
        quantile = float(special.stdtrit(self.n - 1, 1 - level / 2))
        spread, mean, skew = self._spread(), self.value, self._skewness()
        low, high = (mean - spread * _untransform(sign * quantile, skew, self.n)
                     for sign in (1, -1))  # fmt: skip
        if self._tied:
            return low, high
        half = quantile * spread / np.sqrt(self.n - 1)
        return float(min(low, mean - half)), float(max(high, mean + half))

    def p(self) -> float:
        """Return the two-sided p-value of a true mean of 0."""
        return max(self.tail(), self.smallest_p())

    def tail(self) -> float:
        """Return the p-value without its lower bound, for values that are near to normal."""
        spread = self._spread()
        if spread == 0:
            return float(self.value == 0)
        student = self.value / spread
        skewed = _transform(student, self._skewness(), self.n)
        smaller = min(abs(student) * np.sqrt(self.n - 1), abs(skewed))
        return float(2 * special.stdtr(self.n - 1, -smaller))

    def smallest_p(self) -> float:
        """Return the smallest p-value that so many units other than 0 can give."""
        return min(1.0, 2.0 ** (1 - int(np.count_nonzero(self.values))))

    @property
    def _tied(self) -> bool:
        return self.common >= max(2, TIED * self.n)

    def _spread(self) -> float:
        """Return the standard deviation, with n in the denominator."""
        spread = float(self.values.std())
        return spread if spread > ROUNDING * float(np.abs(self.values).max()) else 0.0

    def _skewness(self) -> float:
        """Return the skewness, enlarged where n is small and the values are not tied."""
        spread = self._spread()
        if spread == 0:
            return 0.0
        skew = float((((self.values - self.value) / spread) ** 3).mean())
        return skew if self._tied else skew * (1 + SMALL_SAMPLE / self.n)


def row_units(sums: Array, counts: Array) -> Units:
    """Return units whose mean is sum(sums) / sum(counts): the mean over rows that come in clusters.

    They are the jackknife's pseudo-values, moved so that their mean is that mean itself.

    Source: Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 2.

    Args:
        sums: sum over the rows of each cluster ``[n]``.
        counts: number of rows of each cluster ``[n]``, 1 or more.

    Example:
        >>> row_units(np.array([1.0, 3.0]), np.array([2.0, 2.0])).values.tolist()
        [0.5, 1.5]
    """
    n, total, rows = len(sums), sums.sum(), counts.sum()
    mean, common = total / rows, _most_common(sums / counts)
    if n == 1:
        return Units(np.array([mean]), common)
    values = n * mean - (n - 1) * (total - sums) / (rows - counts)
    return Units(values + (mean - values.mean()), common)


def jackknife_units(value: float, replicates: Sequence[float] | Array) -> Units:
    """Return the jackknife's pseudo-values of a statistic of sets, one per group of images.

    Args:
        value: the figure, from all data.
        replicates: the figure without each of G disjoint groups of equal size.

    Example:
        >>> jackknife_units(1.0, [0.5, 1.5]).values.tolist()
        [1.5, 0.5]
    """
    reps = np.asarray(replicates, dtype=float)
    return Units(value + (len(reps) - 1) * (reps.mean() - reps))


def jackknife(value: float, replicates: Sequence[float] | Array) -> tuple[float, float] | None:
    """Return the 95% delete-a-group jackknife interval of a statistic of sets, None where none.

    Source: Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 3. Nothing is
    drawn twice, so a statistic that is biased in n, as a Frechet distance is, keeps its bias. The
    interval covers the expected figure at this n, and is that of `Units` over the groups.

    Args:
        value: the figure, from all data.
        replicates: the figure without each of G disjoint groups of equal size.

    Example:
        >>> jackknife(1.0, [0.5] * 10)
    """
    units = jackknife_units(value, replicates)
    return None if units.why_no_interval() else units.interval()


def jackknife_rate(
    value: float, replicates: Sequence[float] | Array, n: int
) -> tuple[float, float]:
    """Return the 95% Wilson interval of a share of a set, such as precision.

    Of as many independent rows as would have the jackknife's variance, with the t law's quantile
    for the normal law's; of n rows where that variance or the share's own is 0.

    Args:
        value: the share, from all data.
        replicates: the share without each of G disjoint groups of equal size.
        n: number of independent images.

    Example:
        >>> jackknife_rate(0.0, [0.0] * 10, 10)[0]
        0.0
    """
    values = jackknife_units(value, replicates).values
    variance, alone = float(values.var(ddof=1)) / len(values), value * (1 - value)
    rows = alone / variance if variance > 0 and alone > 0 else float(n)
    quantile = float(special.stdtrit(len(values) - 1, 1 - LEVEL / 2))
    return wilson(value * rows, rows, quantile)


def wilson(successes: float, n: float, quantile: float = NORMAL) -> tuple[float, float]:
    """Return the 95% Wilson interval of a rate.

    Example:
        >>> [round(x, 3) for x in wilson(0, 10)]
        [0.0, 0.278]
    """
    z, rate = quantile, successes / n
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return (0.0 if successes == 0 else float(low)), (1.0 if successes == n else float(high))


def clustered_wilson(hits: Array, rows: Array) -> tuple[float, float]:
    """Return the 95% Wilson interval of a rate whose rows come in clusters.

    Source: Rao and Scott, "A Simple Method for the Analysis of Clustered Binary Data": hits and
    rows are divided by the design effect, the variance of the rate over that of independent rows;
    here between 1 and the mean number of rows of a cluster.

    Args:
        hits: rows of each cluster that are 1 ``[n]``.
        rows: rows of each cluster ``[n]``.

    Example:
        >>> clustered_wilson(np.array([0.0, 0.0]), np.array([3.0, 3.0])) == wilson(0, 2)
        True
    """
    n, total = len(rows), float(rows.sum())
    rate, most = float(hits.sum()) / total, total / n
    if most == 1:
        return wilson(float(hits.sum()), total)
    variance = float(row_units(hits, rows).values.var(ddof=1)) / n if n > 1 else 0.0
    alone = rate * (1 - rate) / total
    effect = min(max(variance / alone, 1.0), most) if alone > 0 else most
    return wilson(rate * total / effect, total / effect)


def _most_common(values: Array) -> int:
    """Return how many values are the most common one."""
    return int(np.unique(values, return_counts=True)[1].max()) if len(values) else 0


def _transform(student: float, skew: float, n: int) -> float:
    """Return Hall's transform of mean / standard deviation, near to t distributed."""
    cubic = student + skew * student**2 / 3 + skew**2 * student**3 / 27 + skew / (6 * n)
    return float(np.sqrt(n) * cubic)


def _untransform(quantile: float, skew: float, n: int) -> float:
    """Return the mean / standard deviation whose transform is this."""
    scaled = quantile / np.sqrt(n)
    if abs(skew) < 1e-8:
        return float(scaled)
    return float(3 / skew * (np.cbrt(1 + skew * (scaled - skew / (6 * n))) - 1))
