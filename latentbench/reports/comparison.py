"""Tests: which methods a figure tells apart, on the same images, and which it does not."""

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from latentbench.errors import BadInput
from latentbench.intervals import FEWEST, LEVEL, Array, Units, jackknife_units
from latentbench.means import Mean, crossed_mean, jackknife_mean

Numbers = npt.NDArray[np.intp]
POWER = 0.8  # at which a difference counts as detectable


@dataclass(frozen=True)
class Comparison:
    """How two methods differ on the same images.

    Args:
        difference: figure of the first minus figure of the second.
        error: its standard error.
        freedom: degrees of freedom of the error.
        low: lower end of the difference's 95% interval, or None where none is valid.
        high: upper end.
        p: two-sided p-value, not corrected for the number of comparisons.
        smallest_p: the smallest p-value that so few images can give.
        n: images (clusters) that both have a value for.
        wins: share of them where the first is larger, ties counting one half; None for figures
            of sets.
        binary: whether each image says first, second or neither, as with rates: the p-value of
            McNemar's exact test then decides where there is no interval.
        values: both figures on the rows that both have, which are not those of the whole rows where
            some rows are one method's only; None for figures of sets.
    """

    difference: float
    error: float
    freedom: float
    low: float | None
    high: float | None
    p: float
    smallest_p: float
    n: int
    wins: float | None = None
    binary: bool = False
    values: tuple[float, float] | None = None

    @property
    def leaves_out_zero(self) -> bool:
        """Whether there is an interval without 0, or enough images that each are a win or not."""
        if self.low is None or self.high is None:
            return self.binary and self.n >= FEWEST
        return not self.low <= 0 <= self.high

    def detectable(self, level: float = LEVEL) -> float:
        """Return the difference that a test of this level would find with 80% power."""
        quantiles = (
            special.stdtrit(self.freedom, 1 - level / 2),
            special.stdtrit(self.freedom, POWER),
        )
        return float(sum(quantiles)) * self.error

    def power(self, difference: float, level: float = LEVEL) -> float:
        """Return with what power a test of this level would find a true difference."""
        if self.error == 0:
            return float(difference != 0)
        limit = special.stdtrit(self.freedom, 1 - level / 2)
        return float(special.stdtr(self.freedom, abs(difference) / self.error - limit))


def compare(gaps: Array) -> Comparison | None:
    """Compare two methods by their paired differences, or return None below two images.

    The mean over images is tested as `latentbench.intervals.Units` does, whose p-value and interval
    go together. Several seeds: the result must hold for seeds and images drawn at random as well,
    see `latentbench.means.crossed_mean`: the larger p-value, the union of both intervals.

    Args:
        gaps: first minus second per seed and image ``[s, n]``, all finite.

    Example:
        >>> compare(np.ones((1, 10))).wins
        1.0
    """
    return next(iter(compare_all(gaps[None])), None)


def compare_all(
    gaps: Array, common: Numbers | None = None, values: Array | None = None
) -> list[Comparison]:
    """Compare many pairs of methods, each as `compare` does; none below two images.

    Args:
        gaps: first minus second per pair, seed and image ``[pairs, s, n]``, all finite.
        common: number of images that share the most common difference of each pair ``[pairs]``;
            counted if not given.
        values: both figures of each pair ``[pairs, 2]``.
    """
    count, s, n = gaps.shape
    if n < 2:
        return []
    mean, units = crossed_mean(gaps), Units(gaps.mean(1), common)
    wins = ((units.values > 0) + 0.5 * (units.values == 0)).mean(-1)
    binary = np.isin(gaps, (-1.0, 0.0, 1.0)).reshape(count, -1).all(1)
    p = np.where(binary, mcnemar(units.values), units.p()) if s == 1 else units.p()
    p = p if s == 1 else np.maximum(p, mean.p())
    ends = (np.where(units.have_interval, end, None) for end in mean.joined(units))
    both = [None] * count if values is None else list(map(tuple, values.tolist()))
    further: list[Any] = [units.smallest_p(), np.full(count, n), wins, binary]
    return _comparisons(mean, ends, p, *further, both)


def _comparisons(mean: Mean, ends: Iterable[Any], p: Array, *further: Any) -> list[Comparison]:
    """Return a comparison per pair, of plain numbers.

    Args:
        mean: the difference of each pair.
        ends: of its interval.
        p: its p-value.
        further: what follows in a comparison, one value per pair each.
    """
    freedom = np.broadcast_to(mean.freedom, p.shape)
    columns = (mean.value, mean.error, freedom, *ends, p, *further)
    plain = (c.tolist() if isinstance(c, np.ndarray) else c for c in columns)
    return [Comparison(*row) for row in zip(*plain, strict=True)]


def mcnemar(gaps: Array) -> Any:
    """Return the exact two-sided p-value of differences that are -1, 0 or 1.

    Source: McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions",
    with the binomial law for the normal one.

    Args:
        gaps: ``[..., n]``; the p-values have the leading axes.

    Example:
        >>> float(mcnemar(np.array([1.0, 1.0, 1.0, 0.0])))
        0.25
    """
    wins, losses = (gaps > 0).sum(-1), (gaps < 0).sum(-1)
    return np.minimum(1.0, 2 * special.bdtr(np.minimum(wins, losses), wins + losses, 0.5))


def compare_sets(gaps: Array, replicates: Array, n: Numbers) -> list[Comparison]:
    """Compare pairs of methods by a figure of whole sets, from jackknife replicates.

    Both sets must consist of the same images in the same groups.

    Args:
        gaps: first minus second per pair and seed ``[pairs, s]``.
        replicates: the same without each group of images ``[pairs, s, groups]``.
        n: images of each pair ``[pairs]``.
    """
    mean = jackknife_mean(gaps, replicates)
    units = jackknife_units(gaps.mean(-1), replicates.mean(-2))
    p = np.maximum(mean.p(), units.tail())
    return _comparisons(mean, mean.joined(units), p, np.zeros(len(gaps)), n)


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


class Ranking:
    """What one figure says about the order of the rows of a board, and what it leaves open.

    Every pair is tested and the p-values are corrected together, so that the chance of any false
    difference is at most 5%, whichever row happens to look best.

    Args:
        values: the figure of each row, None where it has none.
        pairs: (i, j) with i < j -> how row i differs from row j; pairs that cannot be compared
            are absent and count as not told apart.
        higher_is_better: direction.
        smallest: the smallest difference that matters; smaller ones are not told apart.
        witness: the figure as another judge reads it; rows that it does not order alike are not
            told apart. Empty: none is asked.
    """

    def __init__(
        self,
        values: Sequence[float | None],
        pairs: Mapping[tuple[int, int], Comparison],
        higher_is_better: bool,
        smallest: float = 0.0,
        witness: Sequence[float | None] = (),
    ) -> None:
        self.values, self.pairs, self.higher_is_better = values, pairs, higher_is_better
        self.smallest, self.witness = smallest, witness or [None] * len(values)
        self.corrected = dict(zip(pairs, holm([c.p for c in pairs.values()]), strict=True))
        sign = -1 if higher_is_better else 1
        known = {k: sign * value for k, value in enumerate(values) if value is not None}
        self.order = sorted(known, key=known.__getitem__)

    def apart(self, i: int, j: int) -> bool:
        """Return whether the two rows differ, and the judge that bears witness orders them alike.

        What fools one judge is no better for that.
        """
        return (i, j) in self._better or (j, i) in self._better

    def better(self, i: int, j: int) -> bool:
        """Return whether row i is told apart from row j and is the better one."""
        return (i, j) in self._better

    @cached_property
    def _better(self) -> frozenset[tuple[int, int]]:
        """The pairs that are told apart, the better row first."""
        return frozenset(pair for pair in self.differing if self._is_witnessed(*pair))

    def _is_witnessed(self, better: int, worse: int) -> bool:
        one, other = self.witness[better], self.witness[worse]
        if one is None or other is None:
            return True
        return one > other if self.higher_is_better else one < other

    @cached_property
    def differing(self) -> frozenset[tuple[int, int]]:
        """The pairs that differ by this judge, in what is tested and shown; the better row first.

        The corrected p is below 5%, the interval leaves out 0, the difference is one that matters,
        and the shown figures, which may be of more images than both have, differ the same way.
        """
        return frozenset(
            (i, j) if (found.difference > 0) == self.higher_is_better else (j, i)
            for (i, j), found in self.pairs.items()
            if self._differs((i, j), found)
        )

    def _differs(self, pair: tuple[int, int], found: Comparison) -> bool:
        if self.corrected[pair] >= LEVEL:
            return False
        one, other = (self.values[k] for k in pair)
        if one is None or other is None or (one - other) * found.difference <= 0:
            return False
        return found.leaves_out_zero and abs(found.difference) >= self.smallest

    @cached_property
    def ranks(self) -> dict[int, tuple[int, int]]:
        """The ranks that each row may have, best and worst; all hold together with 95%.

        Source: Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks with Applications to
        Mobility across Neighbourhoods and Academic Achievement across Countries": a row is behind
        those that are better with significance, and before those that are worse. Ranking anew in
        each bootstrap draw is not used: where methods are close it misses the true rank far more
        often than 5% (docs/statistics.md).
        """
        return {
            i: (
                1 + sum(self.better(j, i) for j in self.order),
                len(self.order) - sum(self.better(i, j) for j in self.order),
            )
            for i in self.order
        }

    @cached_property
    def letters(self) -> dict[int, str]:
        """The compact letter display: rows that share a letter are not told apart.

        Source: Piepho, "An Algorithm for a Letter-Based Representation of All-Pairwise
        Comparisons": insert and absorb.
        """
        groups = [frozenset(self.order)]
        for i, j in combinations(self.order, 2):
            if self.apart(i, j):
                both = [g for g in groups if {i, j} <= g]
                parts = [g - {k} for g in both for k in (i, j)]
                kept = {*(g for g in groups if g not in both), *parts}
                groups = [g for g in kept if not any(g < other for other in kept)]
        place = {row: k for k, row in enumerate(self.order)}
        groups.sort(key=lambda g: sorted(place[row] for row in g))
        names = [_letter(k) for k in range(len(groups))]
        return {
            i: "".join(name for name, g in zip(names, groups, strict=True) if i in g)
            for i in self.order
        }

    def detectable(self) -> float | None:
        """Return the difference that would be found with 80% power between two typical rows.

        (t(1 - 0.05 / 2m, df) + t(0.8, df)) x standard error of a paired difference, the median
        over the m pairs; m corrects for their number. None where there are no pairs, or where so
        few images cannot give a p-value below 0.05 / m.
        """
        m = len(self.pairs)
        if not m or min(c.smallest_p for c in self.pairs.values()) * m >= LEVEL:
            return None
        return float(np.median([c.detectable(LEVEL / m) for c in self.pairs.values()]))


def kendall(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return Kendall's tau-b of two readings of the same rows, None where one reads all the same.

    Example:
        >>> kendall([1, 2, 3], [1, 3, 2])
        0.33333333333333337
    """
    one, other = (np.sign(np.subtract.outer(x, x)) for x in (a, b))
    untied = np.abs(one).sum() / 2, np.abs(other).sum() / 2  # each pair counts once
    if not all(untied):
        return None
    tau = (one * other).sum() / 2 / np.sqrt(untied[0]) / np.sqrt(untied[1])
    return float(np.clip(tau, -1, 1))


def images_for(pairs: int) -> int:
    """Return how many images can give a p-value below 0.05 / pairs, if all differ the same way.

    Example:
        >>> images_for(1), images_for(1035)
        (8, 16)
    """
    return max(FEWEST, int(np.floor(np.log2(pairs / LEVEL))) + 2)


def _letter(k: int) -> str:
    """Return the k-th group's sign: a..z, then a2..z2, a3..z3, which stay apart when joined."""
    return string.ascii_lowercase[k % 26] + ("" if k < 26 else str(1 + k // 26))
