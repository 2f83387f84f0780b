"""Figures of sets: groups of images that are left out in turn for an interval."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from latentbench.intervals import jackknife, jackknife_units
from latentbench.statistics import add_note
from latentbench.types import Score

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
GROUPS = 10  # of images, left out in turn for an interval
HEAVY = 2.0  # times as variable as a Gaussian that squared distances from the mean may be


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
    return replace(score, low=float(ends[0]), high=float(ends[1]))


def of_pairs(statistic: Callable[[Sequence[int]], float]) -> tuple[float, ...]:
    """Return replicates, one per group, of a figure that is near to a mean over pairs of images.

    Such a figure, a squared correlation for one, is made of a part for each group and one for each
    pair. The jackknife counts the variance of the pairs' part twice (Efron and Stein). That part
    is known from the figure without any two groups, and counts once: the replicates are drawn
    towards the figure, to half of the variance at most, which is right where pairs are all there
    is, as for the squared correlation of true noise.

    Source: Efron and Stein, "The Jackknife Estimate of Variance", for the parts of one and of two.

    Args:
        statistic: the figure of the given groups.

    Example:
        >>> [round(r, 3) for r in of_pairs(lambda kept: float(np.mean(kept)))][:2]
        [5.0, 4.889]
    """
    every, pairs = range(GROUPS), GROUPS * (GROUPS - 1)
    value = statistic(every)
    once = np.array([statistic([k for k in every if k != out]) for out in every])
    found = np.full((GROUPS, GROUPS), np.nan)  # the figure of each pair of groups by itself
    for i, j in itertools.combinations(every, 2):
        twice = (GROUPS - 2) * (GROUPS - 3) * statistic([k for k in every if k not in (i, j)])
        alone = pairs * value - (GROUPS - 1) * (GROUPS - 2) * (once[i] + once[j]) + twice
        found[i, j] = found[j, i] = alone / 2
    mean = np.nanmean(found)
    own = (np.nansum(found, 1) - (GROUPS - 1) * mean) / (GROUPS - 2)
    together = np.nansum((found - mean - own[:, None] - own) ** 2) / (GROUPS * (GROUPS - 3))
    variance = jackknife_units(value, once).values.var(ddof=1) / GROUPS
    share = max(0.5, 1 - 2 * together / pairs / variance) if variance > 0 else 1.0
    return tuple((value + np.sqrt(share) * (once - once.mean())).tolist())


def too_wide(*sets: Array) -> str:
    """Return why distances of these sets of features ``[n, d]`` have no interval, or "".

    A jackknife of second and higher moments holds where tails are no heavier than a Gaussian's by
    much (docs/statistics.md). The squared distance from the mean of Gaussian features with
    covariance S varies by 2 tr(S^2) / tr(S)^2 of its squared mean; twice that is too much.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(200, 8))
        >>> too_wide(x), too_wide(x / np.abs(x[:, :1]))[:42]
        ('', 'no interval: heavy tails: squared distance')
    """
    shares = [_tails(x) for x in sets if len(x) > 2]
    if max(shares, default=0.0) <= HEAVY:
        return ""
    return (
        f"no interval: heavy tails: squared distances of features from their mean vary "
        f"{max(shares):.3g} times as much as a Gaussian's, at most {HEAVY:g} can be dealt with"
    )


def _tails(features: Array) -> float:
    """Return the variance of squared distances from the mean / that of a Gaussian."""
    centred = features - features.mean(0)
    squares, wide = np.square(centred).sum(1), len(features) < features.shape[1]
    second = np.square(centred @ centred.T if wide else centred.T @ centred).sum()
    return float(squares.var() * len(features) ** 2 / (2 * second)) if second > 0 else 0.0


def too_few(*sets: Sequence[str]) -> str:
    """Return why these sets of ids have no jackknife interval, or an empty string."""
    n, least = min(len(set(ids)) for ids in sets), 2 * GROUPS
    return f"no interval: {n} images, at least {least} needed on each side" if n < least else ""
