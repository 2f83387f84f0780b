"""Nearest neighbours among features, by Euclidean distance, a block of rows at a time."""

from collections.abc import Iterator

import numpy as np

from metrics.jackknife import Array, Rows

BLOCK = 1024  # rows whose distances are held in memory at once


def squared_distances(a: Array, b: Array) -> Iterator[tuple[slice, Array]]:
    """Yield blocks of rows of `a` with their squared distances to `b`, ``[block, m]``.

    Example:
        >>> (rows, gaps), = squared_distances(np.zeros((1, 2)), np.ones((1, 2)))
        >>> gaps.tolist()
        [[2.0]]
    """
    left, right = (np.square(x).sum(1) for x in (a, b))
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        gaps = a[rows] @ b.T
        gaps *= -2
        gaps += left[rows, None]
        gaps += right
        yield rows, gaps.clip(0, out=gaps)


def among_itself(x: Array) -> Iterator[tuple[slice, Array]]:
    """Yield the same for a set and itself; the distance of a row to itself is infinite."""
    for rows, gaps in squared_distances(x, x):
        place = np.arange(len(gaps))
        gaps[place, place + rows.start] = np.inf
        yield rows, gaps


def nearest(a: Array, b: Array) -> tuple[Array, Rows]:
    """Return the distance of each row of `a` to the nearest row of `b`, and which that is.

    Example:
        >>> nearest(np.array([[1.0]]), np.array([[4.0], [2.0]]))
        (array([1.]), array([1]))
    """
    found = [(np.sqrt(gaps.min(1)), gaps.argmin(1)) for _, gaps in squared_distances(a, b)]
    return np.concatenate([x for x, _ in found]), np.concatenate([x for _, x in found])


def nearest_others(x: Array) -> Array:
    """Return the distance of each row to the nearest other row."""
    return np.sqrt(np.concatenate([gaps.min(1) for _, gaps in among_itself(x)]))
