"""Intervals and tests: what a leaderboard may say about figures, and about differences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.types import Score

Array = npt.NDArray[np.float64]

RESAMPLES = 2000
FLIPS = 10_000
MOST_EXACT = 15  # clusters up to which all sign flips are counted
FEWEST = 8  # clusters below which a 95% bootstrap interval is not shown
_BLOCK = 2**20  # random numbers drawn at once


def mean_score(values: Tensor, ids: Sequence[str]) -> Score:
    """Return the mean with its 95% percentile bootstrap interval over clusters.

    Rows with the same id are one cluster and are resampled together; NaN values are left out
    and counted in the note. The result does not depend on the order of the rows.

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
    low, high = np.quantile(_bootstrap(sums, counts), [0.025, 0.975])
    return replace(score, low=float(low), high=float(high))


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
class Comparison:
    """How two methods differ on the same images.

    Args:
        difference: mean of first minus second.
        low: lower end of its 95% percentile bootstrap interval over clusters, or None.
        high: upper end.
        p: two-sided sign-flip permutation p-value, or None below two clusters.
        wins: share of clusters where the first is larger; ties count one half.
        n: clusters that both methods have a value for.
    """

    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    wins: float | None
    n: int


def compare(
    first: Tensor, second: Tensor, first_ids: Sequence[str], second_ids: Sequence[str]
) -> Comparison:
    """Compare two methods by their per-image values, paired by id.

    Args:
        first: values ``[rows]`` or ``[rows, k]`` of one method.
        second: values of the other.
        first_ids: cluster of each row; the mean over a cluster's rows is compared.
        second_ids: the same for the other method.

    Example:
        >>> ids = [str(i) for i in range(10)]
        >>> compare(torch.ones(10), torch.zeros(10), ids, ids).wins
        1.0
    """
    a, b = _means(first, first_ids), _means(second, second_ids)
    gaps = np.array([a[i] - b[i] for i in sorted(a.keys() & b.keys())])
    n = len(gaps)
    if n == 0:
        return Comparison(None, None, None, None, None, 0)
    wins = float(((gaps > 0) + 0.5 * (gaps == 0)).mean())
    low = high = None
    if n >= FEWEST:
        ends = np.quantile(_bootstrap(gaps, np.ones(n)), [0.025, 0.975])
        low, high = float(ends[0]), float(ends[1])
    return Comparison(float(gaps.mean()), low, high, sign_flip(gaps), wins, n)


def sign_flip(gaps: Array) -> float | None:
    """Return the two-sided permutation p-value of paired differences, one per cluster.

    Exact up to 15 clusters; above, 10,000 seeded flips with the usual +1 in both counts.

    Example:
        >>> sign_flip(np.ones(3))
        0.25
    """
    n = len(gaps)
    if n < 2:
        return None
    limit = abs(gaps.sum()) * (1 - 1e-12)
    if n <= MOST_EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ gaps) >= limit).mean())
    hits = sum(int((np.abs((2 * draw - 1) @ gaps) >= limit).sum()) for draw in _draws(2, n, FLIPS))
    return (hits + 1) / (FLIPS + 1)


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


def _means(values: Tensor, ids: Sequence[str]) -> dict[str, float]:
    """Return the mean of the finite values of each id."""
    table = _table(values)
    names = sorted({i for i, row in zip(ids, table, strict=True) if np.isfinite(row).any()})
    sums, counts = _clusters(table, ids)
    return dict(zip(names, (sums / counts).tolist(), strict=True))


def _draws(below: int, n: int, times: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield `times` seeded rows of n integers below a bound, in blocks that fit in memory."""
    random, rows = np.random.default_rng(0), max(1, _BLOCK // n)
    for start in range(0, times, rows):
        yield random.integers(0, below, (min(rows, times - start), n))


def _bootstrap(sums: Array, counts: Array) -> Array:
    """Return the means of resampled clusters."""
    n = len(sums)
    parts = [sums[pick].sum(1) / counts[pick].sum(1) for pick in _draws(n, n, RESAMPLES)]
    return np.concatenate(parts)
