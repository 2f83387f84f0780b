"""`fd_<judge>`: the Frechet distance of Gaussians fitted to features."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from latentbench.bounds import NotNegative, SetSize
from latentbench.data.dataset import Split
from latentbench.metric import Figure, Metric
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from latentbench.zoo.judges import JudgeName
from metrics.jackknife import GROUPS, Array, Rows, groups, jackknife_score, too_few, too_wide
from metrics.sets.feature_sets import FeatureSets, Set
from metrics.sets.moments import Moments, gaussian, gaussian_distance, moments

SUMS = ("count", "total", "product")  # of groups of outputs, under the names of `Moments`
FLOORS = 3  # times the floor below which a distance says little


class FrechetSets(FeatureSets):
    """Base of Frechet distances: what is too few to have one.

    Class attributes:
        counted: what is counted, in words.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: images per feature dimension, on both sides, below which there is no value.
    """

    counted: ClassVar[str] = "images"

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        reference_split: Split = "test",
        reference_n: SetSize = 2048,
        per_dimension: NotNegative = 2.0,
    ) -> None:
        super().__init__(
            extractor=extractor, reference_split=reference_split, reference_n=reference_n
        )
        self.per_dimension = per_dimension

    def too_small(self, count: int, dimensions: int) -> str:
        """Return why so many images allow no Frechet distance, or an empty string.

        Example:
            >>> FrechetDistance().too_small(count=8, dimensions=4)
            ''
        """
        least = max(2, self.per_dimension * dimensions)
        have = f"{count} {self.counted} for {dimensions} feature dimensions"
        what_to_do = f"at least {least:g} needed; the kernel distance is valid here"
        return f"{have}, {what_to_do}" if count < least else ""


class FrechetDistance(FrechetSets):
    """Frechet distance of the outputs to real images.

    FD = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances with N - 1 in the denominator.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", section 3. Deviation:
    no matrix root is taken. With S1 = A^T A and S2 = B^T B the trace of the root is the sum of the
    singular values of A B^T: A and B are the centred features where those are fewer than
    dimensions, roots by Cholesky otherwise. Equal to clean-fid's `frechet_distance` to 1e-6.

    The figure is biased upwards: of two sets of n and m images of one Gaussian with eigenvalues l
    it is about (1 / n + 1 / m) (sum l_i + sum_ij (1 + [i = j]) l_i l_j / (l_i + l_j) / 2). So it is
    comparable at equal n only, and the note gives that floor, with the distance of real to real
    images at the same n where there are enough. Below `per_dimension` images per feature dimension
    there is no value: use the kernel distance.

    The percentile bootstrap is not valid here: drawing images twice adds a second bias. The
    interval is the jackknife over 10 groups of both sets; it covers the expected figure at this n,
    and is left out where features have heavy tails. Coverage: docs/statistics.md.

    The features of up to `held` images are kept, and any split and order of merging gives the same
    bytes; above, only sums of ten groups, divided by a hash of the ids, so that memory is
    constant (but for the ids) and shards agree with the whole to rounding, 1e-9 relative.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: images per feature dimension, on both sides, below which there is no value.

    Example:
        >>> metric = FrechetDistance(extractor="zoo1")
        >>> metric.column
        'fd_zoo1'
    """

    prefix = "fd"
    source = "GANs Trained by a Two Time-Scale Update Rule, section 3"
    fewest = 2
    held = 16_384  # images

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"Frechet distance of outputs to real images, features of {self.extractor}"
        return {self.column: Figure(what, low=0.0, higher_is_better=False)}

    def add(self, samples: Samples) -> None:
        """Keep the features, or their sums where there are many."""
        super().add(samples)
        self._sum_up(len(self.seen) > self.held)

    def merge_state(self, incoming_state: Mapping[str, Tensor] | Metric) -> None:
        """Take in what another shard has seen."""
        super().merge_state(incoming_state)
        self._sum_up(len(self.seen) > self.held or SUMS[0] in self.seen.sums)

    def compute(self) -> dict[str, Score]:
        """Return the distance; None where there are too few images for it."""
        real, ids = self.reference(), self.seen.names()
        n, smaller = len(ids), min(len(ids), len(real[0]))
        few = self.too_small(smaller, real[0].shape[1])
        if few:
            return {self.column: add_note(Score(None, n, note=few), self.remark())}
        why_not = too_few(list(ids), real[1]) or too_wide(self.collected()[0], real[0])
        score = jackknife_score(self._pair(real).distance, n, why_not)
        return {self.column: add_note(score, self._floor(score, real[0]), self.remark())}

    def _pair(self, real: Set) -> "Pair":
        """Return outputs and real images, ready for distances of their groups."""
        outputs, ids = self.collected()
        if SUMS[0] not in self.seen.sums:
            return pair((outputs, ids), real)
        sums = Moments(*(self.seen.sums[name].numpy() for name in SUMS))
        whole = sums + moments(outputs, hashed(ids)) if ids else sums
        return GaussianPair(whole, moments(real[0], groups(real[1])))

    def _sum_up(self, really: bool) -> None:
        """Turn the features into sums of groups."""
        outputs, ids = self.collected() if really else (None, [])
        if outputs is not None and ids:
            found = vars(moments(outputs, hashed(ids)))
            for name in SUMS:
                self.seen.add(name, torch.from_numpy(found[name]))
            self.seen.drop_rows()

    def _floor(self, score: Score, real: Array) -> str:
        """Return the distance that equal laws would have, and whether the figure is near it."""
        assert score.value is not None
        expected = floor(gaussian(real)[1], score.n, len(real))
        other = self.other_real(score.n)
        known = expected if other is None else distance(other[0], real)
        measured = "" if other is None else f"real against real at this n: {known:.4g}; "
        near = ", within 3 times of it: compare kernel distances"
        close = score.value < FLOORS * known
        return f"{measured}floor of equal Gaussians: {expected:.4g}{near if close else ''}"


class PublishedFrechetDistance(FrechetDistance):
    """The Frechet distance of one published network, which takes the place of a judge.

    A subclass names its `column` and its `weights`, and loads the network.

    Args:
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: images per feature dimension, on both sides, below which there is no value.
    """

    what: str  # the figure in words

    def __init__(
        self,
        *,
        reference_split: Split = "test",
        reference_n: SetSize = 10_000,
        per_dimension: NotNegative = 2.0,
    ) -> None:
        super().__init__(
            reference_split=reference_split, reference_n=reference_n, per_dimension=per_dimension
        )

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        return {self.column: Figure(self.what, low=0.0, higher_is_better=False)}


@runtime_checkable
class Pair(Protocol):
    """Two sets of features in groups."""

    def distance(self, kept: Sequence[int]) -> float:
        """Return the Frechet distance of the kept groups of both sets."""
        ...


class GaussianPair:
    """Two sets known by their moments: symmetric eigenvalues, d x d.

    Args:
        first: moments of the groups of one set.
        second: moments of the groups of the other.
    """

    def __init__(self, first: Moments, second: Moments) -> None:
        self.sets = first, second

    def distance(self, kept: Sequence[int]) -> float:
        """Return the Frechet distance of the kept groups of both sets."""
        return gaussian_distance(*(x.gaussian(kept) for x in self.sets))


class GramPair:
    """Two sets, one at least of no more rows than dimensions: singular values, n x m.

    The products of all rows are computed once; leaving out a group centres the remaining rows.

    Args:
        first: features of one set, and their ids.
        second: those of the other.
    """

    def __init__(self, first: Set, second: Set) -> None:
        self.groups = groups(first[1]), groups(second[1])
        centres = [x.mean(0) for x, _ in (first, second)]
        self.gap = centres[0] - centres[1]
        self.features = first[0] - centres[0], second[0] - centres[1]
        self.products = self.features[0] @ self.features[1].T

    def distance(self, kept: Sequence[int]) -> float:
        """Return the Frechet distance of the kept groups of both sets."""
        one, other = (np.flatnonzero(np.isin(g, kept)) for g in self.groups)
        a, b, both = self.features[0][one], self.features[1][other], self.products[one][:, other]
        gap = self.gap + a.mean(0) - b.mean(0)
        both = both - both.mean(0) - both.mean(1, keepdims=True) + both.mean()
        spread = np.sqrt((len(a) - 1) * (len(b) - 1))
        crossed = np.linalg.svd(both, compute_uv=False).sum() / spread
        traces = a.var(0, ddof=1).sum() + b.var(0, ddof=1).sum()
        return max(0.0, float(gap @ gap + traces - 2 * crossed))


def pair(first: Set, second: Set) -> Pair:
    """Return two sets of (features, ids) in the form that takes the least work."""
    (a, a_ids), (b, b_ids) = first, second
    if min(len(a), len(b)) <= a.shape[1]:
        return GramPair(first, second)
    return GaussianPair(moments(a, groups(a_ids)), moments(b, groups(b_ids)))


def frechet_score(first: Set, second: Set) -> Score:
    """Return the distance of two sets of (features, ids), with its jackknife interval."""
    ids, other = first[1], second[1]
    why_not = too_few(ids, other) or too_wide(first[0], second[0])
    return jackknife_score(pair(first, second).distance, len(set(ids)), why_not)


def distance(a: Array, b: Array) -> float:
    """Return the Frechet distance of features ``[n, d]`` and ``[m, d]``.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> distance(x, x) < 1e-6
        True
    """
    if min(len(a), len(b)) > a.shape[1]:
        return gaussian_distance(gaussian(a), gaussian(b))
    made, real = ([str(k) for k in range(len(x))] for x in (a, b))
    return GramPair((a, made), (b, real)).distance(range(GROUPS))


def floor(covariance: Array, n: int, m: int) -> float:
    """Return the expected distance of n to m draws of one Gaussian, to first order in 1 / n.

    Simulation agrees within 3% at 8 or more draws per dimension.

    Example:
        >>> floor(np.eye(2), 100, 100)
        0.07
    """
    l = np.linalg.eigvalsh(covariance).clip(0)  # noqa: E741
    pairs = np.outer(l, l) / np.maximum(np.add.outer(l, l), np.finfo(float).tiny)
    return float((1 / n + 1 / m) * (l.sum() + (pairs.sum() + np.trace(pairs)) / 2))


def hashed(ids: Sequence[str]) -> Rows:
    """Return the group, 0..9, of each row: a function of its id alone.

    Example:
        >>> bool((hashed(["a", "b"]) == hashed(["b", "a"])[::-1]).all())
        True
    """
    digests = (hashlib.sha256(i.encode()).digest() for i in ids)
    return np.array([int.from_bytes(x[:8], "big") % GROUPS for x in digests])
