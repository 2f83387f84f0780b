"""Intervals and p-values of a figure from independent units: the one place where they are chosen.

`docs/statistics.md` holds the rule for each kind of figure, and the coverage that was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

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
    """Independent values whose mean is a figure, one per image or path; or many such rows at once.

    The interval joins two: Student's t, and Hall's, which corrects it for skewness. The first holds
    for symmetric laws with heavy tails, the second for skewed ones. The skewness of few values is
    too small, so it is enlarged by 1 + 6 / n. Where a quarter of the values or more are the same,
    as for figures with many zeros, Hall's interval is taken alone and unenlarged; the union would
    hold too often. The p-value is the larger of the two, and never below 2 / 2^m for m values other
    than 0, the smallest that a sign-flip test can give.

    Source: Hall, "On the Removal of Skewness by Transformation", the cubic transformation, with
    the t law's quantiles for the normal law's. Deviations: the union and the enlarged skewness.

    Args:
        values: one per unit ``[n]``, all finite. With leading axes ``[..., n]`` everything that is
            returned has these axes; each row is treated as it would be alone.
        common: number of units that share the most common value ``[...]``; counted if not given.

    Example:
        >>> low, high = Units(np.arange(9.0)).interval()
        >>> round(float(low), 2), round(float(high), 2)
        (1.89, 6.11)
        >>> Units(np.arange(18.0).reshape(2, 9)).value.tolist()
        [4.0, 13.0]
    """

    values: Array
    common: Any = None

    def __post_init__(self) -> None:
        if self.common is None:
            object.__setattr__(self, "common", _most_common(self.values))

    @property
    def n(self) -> int:
        """Number of units."""
        return self.values.shape[-1]

    @property
    def value(self) -> Any:
        """The figure: the mean."""
        return self.values.mean(-1)

    @property
    def have_interval(self) -> Any:
        """Whether an interval would hold."""
        enough = (self.n >= FEWEST) & (self.n - self.common >= FEWEST_APART)
        return enough & (self._spread() > 0)

    def why_no_interval(self) -> str:
        """Return why no interval of the only row would hold, in words, or an empty string."""
        if self.have_interval:
            return ""
        if self.n < FEWEST:
            return f"{self.n} images, at least {FEWEST} needed"
        if self.n - self.common < FEWEST_APART:
            return (
                f"{self.common} of {self.n} images read the same, at least {FEWEST_APART} others "
                "needed"
            )
        return "all images read the same"

    def interval(self, level: float = LEVEL) -> tuple[Any, Any]:
        """Return the interval that misses the truth with probability `level`."""
        quantile = float(special.stdtrit(self.n - 1, 1 - level / 2))
        spread, mean, skew = self._spread(), self.value, self._skewness()
        low, high = (mean - spread * _untransform(sign * quantile, skew, self.n)
                     for sign in (1, -1))  # fmt: skip
        half = quantile * spread / np.sqrt(self.n - 1)
        return (
            np.where(self._tied, low, np.minimum(low, mean - half))[()],
            np.where(self._tied, high, np.maximum(high, mean + half))[()],
        )

    def p(self) -> Any:
        """Return the two-sided p-value of a true mean of 0."""
        return np.maximum(self.tail(), self.smallest_p())

    def tail(self) -> Any:
        """Return the p-value without its lower bound, for values that are near to normal."""
        spread, mean = self._spread(), self.value
        student = mean / _or_one(spread)
        skewed = _transform(student, self._skewness(), self.n)
        smaller = np.minimum(abs(student) * np.sqrt(self.n - 1), abs(skewed))
        tails = 2 * special.stdtr(self.n - 1, -smaller)
        return np.where(spread > 0, tails, mean == 0)[()]

    def smallest_p(self) -> Any:
        """Return the smallest p-value that so many units other than 0 can give."""
        return np.minimum(1.0, 2.0 ** (1 - np.count_nonzero(self.values, axis=-1)))

    @property
    def _tied(self) -> Any:
        return self.common >= max(2, TIED * self.n)

    def _spread(self) -> Any:
        """Return the standard deviation, with n in the denominator."""
        spread = self.values.std(-1)
        return spread * (spread > ROUNDING * np.abs(self.values).max(-1))

    def _skewness(self) -> Any:
        """Return the skewness, enlarged where n is small and the values are not tied."""
        spread = self._spread()
        scaled = (self.values - self.value[..., None]) / _or_one(spread)[..., None]
        skew = (scaled**3).mean(-1) * (spread > 0)
        return np.where(self._tied, skew, skew * (1 + SMALL_SAMPLE / self.n))[()]


def row_units(sums: Array, counts: Array) -> Units:
    """Return units whose mean is sum(sums) / sum(counts): the mean over rows that come in clusters.

    They are the jackknife's pseudo-values, moved so that their mean is that mean itself.

    Source: Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 2.

    Args:
        sums: sum over the rows of each cluster ``[..., n]``.
        counts: number of rows of each cluster ``[n]``, 1 or more.

    Example:
        >>> row_units(np.array([1.0, 3.0]), np.array([2.0, 2.0])).values.tolist()
        [0.5, 1.5]
    """
    n, total, rows = sums.shape[-1], sums.sum(-1), counts.sum()
    mean, common = (total / rows)[..., None], _most_common(sums / counts)
    if n == 1:
        return Units(mean, common)
    values = n * mean - (n - 1) * (total[..., None] - sums) / (rows - counts)
    return Units(values + (mean - values.mean(-1, keepdims=True)), common)


def jackknife_units(value: float | Array, replicates: Sequence[float] | Array) -> Units:
    """Return the jackknife's pseudo-values of a statistic of sets, one per group of images.

    Args:
        value: the figure, from all data ``[...]``.
        replicates: the figure without each of G disjoint groups of equal size ``[..., G]``.

    Example:
        >>> jackknife_units(1.0, [0.5, 1.5]).values.tolist()
        [1.5, 0.5]
    """
    reps = np.asarray(replicates, dtype=float)
    moved = (reps.shape[-1] - 1) * (reps.mean(-1, keepdims=True) - reps)
    return Units(np.asarray(value)[..., None] + moved)


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
    here between 1 and the mean number of rows of a cluster, which it is where nothing tells it.

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
    variance = float(row_units(hits, rows).values.var(ddof=1)) / n if n > 1 else np.inf
    alone = rate * (1 - rate) / total
    effect = min(max(variance / alone, 1.0), most) if alone > 0 else most
    return wilson(rate * total / effect, total / effect)


def _most_common(values: Array) -> Any:
    """Return how many values of each row are the most common one."""
    if not values.shape[-1]:
        return np.zeros(values.shape[:-1], int)[()]
    ordered = np.sort(values, -1)
    place = np.arange(values.shape[-1])
    fresh = np.ones(values.shape, bool)
    fresh[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    first = np.maximum.accumulate(np.where(fresh, place, 0), -1)  # of the equal ones, by place
    return (place - first).max(-1) + 1


def _or_one(spread: Any) -> Any:
    """Return a spread as a divisor: 1 where it is 0."""
    return spread + (spread == 0)


def _transform(student: Any, skew: Any, n: int) -> Any:
    """Return Hall's transform of mean / standard deviation, near to t distributed."""
    cubic = student + skew * student**2 / 3 + skew**2 * student**3 / 27 + skew / (6 * n)
    return np.sqrt(n) * cubic


def _untransform(quantile: float, skew: Any, n: int) -> Any:
    """Return the mean / standard deviation whose transform is this."""
    scaled, straight = quantile / np.sqrt(n), abs(skew) < 1e-8
    bent = np.where(straight, 1.0, skew)[()]
    hall = 3 / bent * (np.cbrt(1 + bent * (scaled - bent / (6 * n))) - 1)
    return np.where(straight, scaled, hall)[()]
