"""Gaussians of features, from sums that grow and merge, and their distance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.linalg import get_lapack_funcs

from metrics.jackknife import GROUPS, Array, Rows


@dataclass(frozen=True)
class Moments:
    """Numbers of rows, sums and sums of outer products of groups of features, in float64.

    Args:
        count: ``[g]``.
        total: ``[g, d]``.
        product: ``[g, d, d]``.
    """

    count: Array
    total: Array
    product: Array

    def __add__(self, other: "Moments") -> "Moments":
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        return Moments(*(a + b for a, b in parts))

    def gaussian(self, kept: Sequence[int]) -> tuple[Array, Array]:
        """Return mean ``[d]`` and covariance ``[d, d]`` (N - 1) of the kept groups."""
        n, total, product = (reduce(np.add, (x[k] for k in kept)) for x in vars(self).values())
        mean = total / n
        return mean, (product - n * np.outer(mean, mean)) / (n - 1)


def moments(features: Array, group: Rows) -> Moments:
    """Return the moments of features ``[n, d]`` whose groups, 0..9, are given.

    Example:
        >>> mean, covariance = moments(np.eye(2), np.array([0, 1])).gaussian([0, 1])
        >>> covariance.tolist()
        [[0.5, -0.5], [-0.5, 0.5]]
    """
    d = features.shape[1]
    found = Moments(np.empty(GROUPS), np.empty((GROUPS, d)), np.empty((GROUPS, d, d)))
    for k in range(GROUPS):
        part = features[group == k]
        found.count[k], found.total[k], found.product[k] = len(part), part.sum(0), part.T @ part
    return found


def gaussian(features: Array) -> tuple[Array, Array]:
    """Return mean ``[d]`` and covariance ``[d, d]`` (N - 1) of features ``[n, d]``.

    Example:
        >>> gaussian(np.eye(2))[1].tolist()
        [[0.5, -0.5], [-0.5, 0.5]]
    """
    n, mean, product = len(features), features.mean(0), features.T @ features
    product -= n * np.outer(mean, mean)
    return mean, product / (n - 1)


def gaussian_distance(first: tuple[Array, Array], second: tuple[Array, Array]) -> float:
    """Return the Frechet distance of two Gaussians, each mean ``[d]`` and covariance ``[d, d]``.

    Example:
        >>> round(gaussian_distance((np.zeros(2), np.eye(2)), (np.ones(2), 4 * np.eye(2))), 6)
        4.0
    """
    (m, S), (m2, S2) = first, second
    L = root(S2)
    crossed = np.sqrt(np.linalg.eigvalsh(L.T @ S @ L).clip(0)).sum()
    return max(0.0, float((m - m2) @ (m - m2) + np.trace(S) + np.trace(S2) - 2 * crossed))


def root(covariance: Array) -> Array:
    """Return L ``[d, r]`` with L L^T = covariance, by Cholesky with pivots; r is its rank.

    Example:
        >>> root(np.diag([4.0, 0.0])).tolist()
        [[2.0], [0.0]]
    """
    (cholesky_with_pivots,) = get_lapack_funcs(("pstrf",), (covariance,))
    lower, place, rank, _ = cholesky_with_pivots(covariance, lower=1)
    factor = np.empty((len(covariance), rank))
    factor[place - 1] = np.tril(lower)[:, :rank]
    return factor
