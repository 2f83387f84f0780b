"""Scores: figures of rows that come in clusters, and means over seeds and images.

Which interval is for which figure: `latentbench.intervals`, docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.intervals import LEVEL, Array, Kind, Units, clustered_wilson, row_units
from latentbench.types import Score


def row_score(values: Tensor, ids: Sequence[str], kind: Kind) -> Score:
    """Return the score of a figure of this kind from values of rows, as `mean_score` does."""
    return (rate_score if kind is Kind.RATE else mean_score)(values, ids)


def mean_score(values: Tensor, ids: Sequence[str]) -> Score:
    """Return the mean over rows with its 95% interval over clusters.

    Rows with the same id are one cluster. NaN values are left out and counted in the note. The
    result does not depend on the order of the rows.

    Args:
        values: ``[rows]`` or ``[rows, k]``.
        ids: cluster of each row.

    Example:
        >>> mean_score(torch.ones(10), [str(i) for i in range(10)]).value
        1.0
    """
    sums, counts, note = _clusters(values, ids)
    if not len(sums):
        return Score(None, 0, note="no defined value")
    units = row_units(sums, counts)
    score = Score(float(sums.sum() / counts.sum()), units.n, note=note)
    if why_not := units.why_no_interval():
        return add_note(score, f"no interval: {why_not}")
    low, high = units.interval()
    return replace(score, low=low, high=high)


def rate_score(values: Tensor, ids: Sequence[str]) -> Score:
    """Return the share of rows that are 1, with its 95% Wilson interval over clusters.

    Args:
        values: 0, 1 or NaN, ``[rows]`` or ``[rows, k]``.
        ids: cluster of each row.

    Raises:
        BadInput: a value that is neither 0 nor 1.

    Example:
        >>> rate_score(torch.zeros(10), [str(i) for i in range(10)]).low
        0.0
    """
    table = _table(values)
    odd = table[np.isfinite(table) & (table != 0) & (table != 1)]
    if len(odd):
        raise BadInput(f"a rate takes rows of 0 and 1, got {odd[0]:g}; make the figure a mean")
    hits, rows, note = _clusters(values, ids)
    if not len(hits):
        return Score(None, 0, note="no defined value")
    low, high = clustered_wilson(hits, rows)
    return Score(float(hits.sum() / rows.sum()), len(hits), low, high, note)


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
        half = float(special.stdtrit(self.freedom, 1 - LEVEL / 2)) * self.error
        return self.value - half, self.value + half

    def joined(self, units: Units) -> tuple[float, float]:
        """Return the union of the t-interval, where there are several seeds, and of the units'."""
        ends = units.interval()
        if self.seed_share is not None:
            ends = (*ends, *self.interval())
        return min(ends), max(ends)

    def p(self) -> float:
        """Return the two-sided p-value of a true mean of 0."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * special.stdtr(self.freedom, -abs(self.value) / self.error))


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


def _clusters(values: Tensor, ids: Sequence[str]) -> tuple[Array, Array, str]:
    """Return sum and count of the finite values of each cluster that has any, sorted by id.

    The third is a note on values that are not finite.
    """
    table = _table(values)
    names, cluster = np.unique(np.asarray(ids, dtype=object).astype(str), return_inverse=True)
    known = np.isfinite(table)
    sums, dropped = np.where(known, table, 0.0).sum(1), int((~known).sum())
    order = np.lexsort((sums, cluster))  # adding in one order: the same bytes in any order of rows
    total = np.bincount(cluster[order], sums[order], len(names)).astype(float)
    counts = np.bincount(cluster, known.sum(1).astype(float), len(names)).astype(float)
    note = f"{dropped} undefined values left out" if dropped else ""
    return total[counts > 0], counts[counts > 0], note
