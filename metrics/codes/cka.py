"""`cka_*`: centred kernel alignment of two spaces."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial.distance import pdist, squareform

from latentbench.bounds import Positive
from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, Mask, jackknifed, shared_outlier
from metrics.jackknife import Array


class CKA(CodeMetric):
    """Centred kernel alignment of the codes of the same images in two spaces.

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", section 3:
    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), with a linear kernel, and with a Gaussian one whose
    width is `width` times the median distance. `cka_linear_debiased` takes the unbiased HSIC of
    Song et al., "Feature Selection via Dependence Maximization", as the published (biased) form
    rises to 1 where the dimensions are many for n; the note gives the value of shuffled images.
    Invariant to rotation and isotropic scale, not to a scale of single axes. One image that lies
    far off in both spaces makes `cka_linear` 1, whatever the others do: the note names it, and the
    other two figures hardly move.

    The interval is the jackknife over 10 groups of images.

    Args:
        width: of the Gaussian kernel, in median distances.

    Example:
        >>> list(CKA().figures)
        ['cka_linear', 'cka_linear_debiased', 'cka_rbf']
    """

    needs = frozenset({"codes", "other_codes"})
    source = "Similarity of Neural Network Representations Revisited, section 3"
    fewest = 4

    def __init__(self, *, width: Positive = 0.5) -> None:
        super().__init__()
        self.width = width

    @property
    def figures(self) -> dict[str, Figure]:
        """Linear, debiased and Gaussian."""
        what = "centred kernel alignment of two spaces"
        return {
            "cka_linear": Figure(f"{what}, linear", "", 0.0, 1.0, True),
            "cka_linear_debiased": Figure(f"{what}, linear, unbiased HSIC", "", None, 1.0, True),
            "cka_rbf": Figure(f"{what}, Gaussian kernel", "", 0.0, 1.0, True),
        }

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the three figures."""
        spaces = [rows[name] for name in ("codes", "other_codes")]
        linear = [x @ x.T for x in (x - x.mean(0) for x in spaces)]
        gaussian = [gaussian_kernel(x, self.width) for x in spaces]

        def values(linear: Sequence[Array], gaussian: Sequence[Array]) -> dict[str, float]:
            found = (cka(*linear), debiased_cka(*linear), cka(*gaussian))
            return dict(zip(self.figures, found, strict=True))

        def statistic(keep: Mask) -> dict[str, float]:
            part = np.ix_(keep, keep)
            return values([k[part] for k in linear], [k[part] for k in gaussian])

        order = np.random.default_rng(0).permutation(len(ids))
        mixed = np.ix_(order, order)
        floor = values([linear[0], linear[1][mixed]], [gaussian[0], gaussian[1][mixed]])
        scores = jackknifed(statistic, ids, shared_outlier(spaces[0], spaces[1], ids))
        return {k: add_note(s, f"shuffled images: {floor[k]:.3g}") for k, s in scores.items()}


def cka(k: Array, l: Array) -> float:  # noqa: E741
    """Return the alignment of two kernel matrices ``[n, n]``; NaN where one is constant.

    Example:
        >>> round(cka(np.eye(4), 3 * np.eye(4)), 6)
        1.0
    """
    a, b = _centred(k), _centred(l)
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else np.nan


def debiased_cka(k: Array, l: Array) -> float:  # noqa: E741
    """Return the alignment with the unbiased HSIC; may be negative, NaN where one is constant."""
    own = unbiased_hsic(k, k) * unbiased_hsic(l, l)
    return float(unbiased_hsic(k, l) / np.sqrt(own)) if own > 0 else np.nan


def unbiased_hsic(k: Array, l: Array) -> float:  # noqa: E741
    """Return Song et al.'s unbiased estimate of HSIC, equation 5; at least 4 rows."""
    n = len(k)
    a, b = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    cross = (a * b).sum()
    means = a.sum() * b.sum() / ((n - 1) * (n - 2))
    rows = 2 * (a.sum(0) @ b.sum(0)) / (n - 2)
    return float((cross + means - rows) / (n * (n - 3)))


def gaussian_kernel(codes: Array, width: float) -> Array:
    """Return exp(-|x - y|² / 2 (width median)²) of all pairs ``[n, n]``."""
    squares = pdist(codes, "sqeuclidean")
    scale = 2 * width**2 * float(np.median(squares))
    return np.exp(-squareform(squares) / scale) if scale > 0 else np.ones((len(codes),) * 2)


def _centred(kernel: Array) -> Array:
    return kernel - kernel.mean(0) - kernel.mean(1, keepdims=True) + kernel.mean()
