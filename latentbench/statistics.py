"""Intervals: how sure a figure is. Which method is for which figure: docs/statistics.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from torch import Tensor

from latentbench.types import Score

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
FEWEST = 8  # clusters below which a 95% bootstrap interval is not shown
_BLOCK = 2**20  # random numbers drawn at once


def mean_score(values: Tensor, ids: Sequence[str]) -> Score:
    """Return the mean with its 95% bootstrap interval over clusters.

    Rows with the same id are one cluster and are resampled together; NaN values are left out
    and counted in the note. The result does not depend on the order of the rows.

    Source: Hesterberg, "What Teachers Should Know About the Bootstrap", the expanded percentile
    interval: the percentiles are moved out by as much as the t law is wider than the normal law
    with a standard deviation of n in the denominator.

    Args:
        values: ``[rows]`` or ``[rows, k]``.
        ids: cluster of each row.

    Example:
        >>> mean_score(torch.ones(10), [str(i) for i in range(10)]).value
        1.0
    """
    table = _table(values)
    dropped = int((~np.isfinite(table)).sum())
    note = f"{dropped} undefined values left out" if dropped else ""
    sums, counts = _clusters(table, ids)
    n = len(sums)
    if n == 0:
        return Score(None, 0, note="no defined value")
    score = Score(float(sums.sum() / counts.sum()), n, note=note)
    if n < FEWEST:
        return add_note(score, f"no interval: {n} images, at least {FEWEST} needed")
    low, high = bootstrap_interval(sums, counts)
    return replace(score, low=low, high=high)


def bootstrap_interval(sums: Array, counts: Array) -> tuple[float, float]:
    """Return the 95% expanded percentile interval of sum(sums) / sum(counts) over clusters.

    Example:
        >>> bootstrap_interval(np.ones(10), np.ones(10))
        (1.0, 1.0)
    """
    n = len(sums)
    means = [sums[pick].sum(1) / counts[pick].sum(1) for pick in draws(n, n, RESAMPLES)]
    tail = float(stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def jackknife(value: float, replicates: Sequence[float]) -> tuple[float, float]:
    """Return the 95% delete-a-group jackknife interval of a smooth statistic of sets.

    Source: Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 3: the
    standard error is sqrt((G - 1) / G sum (replicate - mean)^2), here with a t-interval of G - 1
    degrees of freedom. Nothing is drawn twice, so a statistic that is biased in n, as a Frechet
    distance is, keeps its bias. The interval covers the expected figure at this n.

    Args:
        value: the figure, from all data.
        replicates: the figure without each of G disjoint groups of equal size.

    Example:
        >>> jackknife(1.0, [0.5, 0.5])
        (1.0, 1.0)
    """
    count, gaps = len(replicates), np.asarray(replicates) - np.mean(replicates)
    error = np.sqrt((count - 1) / count * np.square(gaps).sum())
    half = float(stats.t.ppf(0.975, count - 1) * error)
    return value - half, value + half


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95% Wilson interval of a rate.

    Example:
        >>> [round(x, 3) for x in wilson(0, 10)]
        [0.0, 0.278]
    """
    interval = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error.

    Args:
        value: the mean.
        error: its standard error.
        freedom: degrees of freedom of the error.
        seed_share: share of the error's square that another choice of seeds would change, or None
            where there is one seed.
    """

    value: float
    error: float
    freedom: float
    seed_share: float | None = None

    def interval(self) -> tuple[float, float]:
        """Return the 95% t-interval."""
        half = float(stats.t.ppf(0.975, self.freedom)) * self.error
        return self.value - half, self.value + half

    def p(self) -> float:
        """Return the two-sided p-value of a true mean of 0."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))


def crossed_mean(table: Array) -> Mean:
    """Return the mean over seeds and images, both of them drawn at random.

    Source: method of moments for the two-way random effects model without replication; degrees of
    freedom after Satterthwaite, "An Approximate Distribution of Estimates of Variance Components".
    With seeds s and images n the variance of the mean is S / s + I / n + E / (s n), where S, I and
    E are the variances of seeds, of images, and of both together; a negative estimate counts as 0.
    Bootstrapping seeds, then images, is not used: with 2 to 5 seeds it is far too narrow
    (docs/statistics.md).

    Args:
        table: one value per seed and image ``[s, n]``, all finite; two images or more.

    Example:
        >>> crossed_mean(np.array([[1.0, 2.0], [1.0, 2.0]])).seed_share
        0.0
    """
    s, n = table.shape
    value, of_seeds, of_images = table.mean(), table.mean(1), table.mean(0)
    images = s * np.square(of_images - value).sum() / (n - 1)
    if s == 1:
        return Mean(float(value), float(np.sqrt(images / n)), n - 1)
    seeds = n * np.square(of_seeds - value).sum() / (s - 1)
    rest = np.square(table - of_seeds[:, None] - of_images + value).sum() / ((s - 1) * (n - 1))
    seed_part, image_part = max(0.0, seeds - rest) / (s * n), max(0.0, images - rest) / (s * n)
    variance = seed_part + image_part + rest / (s * n)
    squares = ((seeds, s - 1), (images, n - 1), (rest, (s - 1) * (n - 1)))
    freedom = _freedom(variance, [(square / (s * n), df) for square, df in squares])
    share = seed_part / variance if variance else 0.0
    return Mean(float(value), float(np.sqrt(variance)), freedom, float(share))


def jackknife_mean(values: Array, replicates: Array) -> Mean:
    """Return the mean over seeds of a statistic of sets.

    The variance is the sum of that between seeds and of the jackknife's over groups of images,
    which counts what seeds and images do together twice: conservative.

    Args:
        values: the figure of each seed ``[s]``.
        replicates: the figure without each group of images ``[s, groups]``.

    Example:
        >>> jackknife_mean(np.array([2.0]), np.array([[1.0, 3.0]])).error
        1.0
    """
    s, count = replicates.shape
    gaps = replicates.mean(0) - replicates.mean()
    images = (count - 1) / count * np.square(gaps).sum()
    if s == 1:
        return Mean(float(values[0]), float(np.sqrt(images)), count - 1)
    seeds = values.var(ddof=1) / s
    variance = seeds + images
    freedom = _freedom(variance, [(seeds, s - 1), (images, count - 1)])
    share = seeds / variance if variance else 0.0
    return Mean(float(values.mean()), float(np.sqrt(variance)), freedom, float(share))


def _freedom(variance: float, parts: Sequence[tuple[float, float]]) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of (variance, degrees of freedom)."""
    smallest = min(df for _, df in parts)
    below = sum(part**2 / df for part, df in parts)
    return max(variance**2 / below, smallest) if below else smallest


def add_note(score: Score, *notes: str) -> Score:
    """Return the score with more said of it; empty notes are left out."""
    return replace(score, note="; ".join(filter(None, (score.note, *notes))))


def _table(values: Tensor) -> Array:
    """Return values as float64 ``[rows, k]``."""
    return (values if values.ndim > 1 else values[:, None]).flatten(1).double().cpu().numpy()


def _clusters(table: Array, ids: Sequence[str]) -> tuple[Array, Array]:
    """Return sum and count of the finite values of each cluster that has any, sorted by id."""
    names, cluster = np.unique(np.asarray(ids, dtype=object).astype(str), return_inverse=True)
    known = np.isfinite(table)
    sums = np.where(known, table, 0.0).sum(1)
    order = np.lexsort((sums, cluster))  # adding in one order: the same bytes in any order of rows
    total = np.bincount(cluster[order], sums[order], len(names)).astype(float)
    counts = np.bincount(cluster, known.sum(1).astype(float), len(names)).astype(float)
    return total[counts > 0], counts[counts > 0]


def draws(
    below: int, n: int, times: int, dtype: type[np.signedinteger[Any]] = np.int64
) -> Iterator[npt.NDArray[Any]]:
    """Yield `times` seeded rows of n integers below a bound, in blocks that fit in memory."""
    random, rows = np.random.default_rng(0), max(1, _BLOCK // n)
    for start in range(0, times, rows):
        yield random.integers(0, below, (min(rows, times - start), n), dtype)
