"""Means over seeds and images, with their standard errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from latentbench.intervals import LEVEL, Array, Units


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error, or many at once: all are then arrays of one shape.

    Args:
        value: the mean.
        error: its standard error.
        freedom: degrees of freedom of the error.
        seed_share: share of the error's square that another choice of seeds would change, or None
            where there is one seed.
    """

    value: Any
    error: Any
    freedom: Any
    seed_share: Any = None

    def interval(self) -> tuple[Any, Any]:
        """Return the 95% t-interval."""
        half = special.stdtrit(self.freedom, 1 - LEVEL / 2) * self.error
        return self.value - half, self.value + half

    def joined(self, units: Units) -> tuple[Any, Any]:
        """Return the union of the t-interval, where there are several seeds, and of the units'."""
        low, high = units.interval()
        if self.seed_share is None:
            return low, high
        other_low, other_high = self.interval()
        return np.minimum(low, other_low), np.maximum(high, other_high)

    def p(self) -> Any:
        """Return the two-sided p-value of a true mean of 0."""
        student = abs(self.value) / (self.error + (self.error == 0))
        tails = 2 * special.stdtr(self.freedom, -student)
        return np.where(self.error == 0, self.value == 0, tails)[()]


def crossed_mean(table: Array) -> Mean:
    """Return the mean over seeds and images, both of them drawn at random.

    Source: method of moments for the two-way random effects model without replication; degrees of
    freedom after Satterthwaite, "An Approximate Distribution of Estimates of Variance Components".
    With seeds s and images n the variance of the mean is S / s + I / n + E / (s n), where S, I and
    E are the variances of seeds, of images, and of both together; a negative estimate counts as 0.
    Bootstrapping seeds, then images, is not used: with 2 to 5 seeds it is far too narrow
    (docs/statistics.md).

    Args:
        table: one value per seed and image ``[..., s, n]``, all finite; two images or more.

    Example:
        >>> float(crossed_mean(np.array([[1.0, 2.0], [1.0, 2.0]])).seed_share)
        0.0
    """
    s, n = table.shape[-2:]
    of_seeds, of_images = table.mean(-1), table.mean(-2)
    value = _over_both(table) / (s * n)
    images = s * np.square(of_images - value[..., None]).sum(-1) / (n - 1)
    if s == 1:
        return Mean(value, np.sqrt(images / n), n - 1)
    seeds = n * np.square(of_seeds - value[..., None]).sum(-1) / (s - 1)
    gaps = table - of_seeds[..., None] - of_images[..., None, :] + value[..., None, None]
    rest = _over_both(np.square(gaps)) / ((s - 1) * (n - 1))
    seed_part, image_part = (np.maximum(0.0, x - rest) / (s * n) for x in (seeds, images))
    variance = seed_part + image_part + rest / (s * n)
    squares = ((seeds, s - 1), (images, n - 1), (rest, (s - 1) * (n - 1)))
    freedom = _freedom(variance, [(square / (s * n), df) for square, df in squares])
    share = seed_part / (variance + (variance == 0))
    return Mean(value, np.sqrt(variance), freedom, share)


def jackknife_mean(values: Array, replicates: Array) -> Mean:
    """Return the mean over seeds of a statistic of sets.

    The variance is the sum of that between seeds and of the jackknife's over groups of images,
    which counts what seeds and images do together twice: conservative.

    Args:
        values: the figure of each seed ``[..., s]``.
        replicates: the figure without each group of images ``[..., s, groups]``.

    Example:
        >>> float(jackknife_mean(np.array([2.0]), np.array([[1.0, 3.0]])).error)
        1.0
    """
    s, count = replicates.shape[-2:]
    gaps = replicates.mean(-2) - (_over_both(replicates) / (s * count))[..., None]
    images = (count - 1) / count * np.square(gaps).sum(-1)
    if s == 1:
        return Mean(values[..., 0], np.sqrt(images), count - 1)
    seeds = values.var(-1, ddof=1) / s
    variance = seeds + images
    freedom = _freedom(variance, [(seeds, s - 1), (images, count - 1)])
    share = seeds / (variance + (variance == 0))
    return Mean(values.mean(-1), np.sqrt(variance), freedom, share)


def _over_both(table: Array) -> Any:
    """Return the sum over the last two axes."""
    return table.reshape(*table.shape[:-2], -1).sum(-1)


def _freedom(variance: Any, parts: Sequence[tuple[Any, float]]) -> Any:
    """Return Satterthwaite's degrees of freedom of a sum of (variance, degrees of freedom)."""
    smallest = min(df for _, df in parts)
    below = sum(part**2 / df for part, df in parts)
    return np.maximum(variance**2 / (below + (below == 0)), smallest)
