"""Figures of sets: groups of images that are left out in turn for an interval."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latentbench.intervals import jackknife
from latentbench.statistics import add_note
from latentbench.types import Score

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
GROUPS = 10  # of images, left out in turn for an interval


def groups(ids: Sequence[str], count: int = GROUPS) -> Rows:
    """Return the group, 0..count - 1, of each row; rows of one id stay together.

    Example:
        >>> groups(["a", "a", "b", "c"], 2).tolist()
        [0, 0, 1, 0]
    """
    place = {name: k % count for k, name in enumerate(sorted(set(ids)))}
    return np.array([place[i] for i in ids])


def jackknife_score(distance: Callable[[Sequence[int]], float], n: int, why_not: str) -> Score:
    """Return a figure of sets with its jackknife interval.

    Args:
        distance: the figure of the given groups of both sets.
        n: number of independent images.
        why_not: why there is no interval, or an empty string.

    Example:
        >>> score = jackknife_score(lambda kept: float(sum(kept)), 20, "")
        >>> score.value, score.low < 45 < score.high
        (45.0, True)
    """
    value = distance(range(GROUPS))
    if why_not:
        return Score(value, n, note=why_not)
    replicates = [distance([k for k in range(GROUPS) if k != out]) for out in range(GROUPS)]
    return replicated_score(value, n, replicates)


def replicated_score(value: float, n: int, replicates: Sequence[float]) -> Score:
    """Return a figure of sets with its jackknife interval, or why there is none.

    Args:
        value: the figure, from all data.
        n: number of independent images.
        replicates: the figure without each group of images.

    Example:
        >>> replicated_score(1.0, 20, [1.0] * 10).note
        'no interval: the same without any of the groups'
    """
    score = Score(value, n, replicates=tuple(replicates))
    ends = jackknife(value, replicates)
    if ends is None:
        return add_note(score, "no interval: the same without any of the groups")
    return replace(score, low=ends[0], high=ends[1])


def too_few(*sets: Sequence[str]) -> str:
    """Return why these sets of ids have no jackknife interval, or an empty string."""
    n, least = min(len(set(ids)) for ids in sets), 2 * GROUPS
    return f"no interval: {n} images, at least {least} needed on each side" if n < least else ""
