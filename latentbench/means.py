"""Means over seeds and images, with their standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from latentbench.intervals import LEVEL, Array, Units


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
