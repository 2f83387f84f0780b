"""`svcca`: canonical correlations of the main directions of two spaces."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np

from latentbench.bounds import above, at_most
from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, jackknifed, shared_outlier
from metrics.jackknife import Array


class SVCCA(CodeMetric):
    """Mean canonical correlation of two spaces after each is cut to its main directions.

    Source: Raghu et al., "SVCCA: Singular Vector Canonical Correlation Analysis", section 2:
    keep the singular directions that explain `kept` of the variance, then average the canonical
    correlations over the smaller number of directions. Invariant to any invertible linear map of
    the kept directions. Chance rises with directions / n: the note gives the value of shuffled
    images. With more directions than images it is 1 for any two spaces, hence undefined. One image
    that lies so far off in both spaces that its direction holds the variance makes it 1 as well:
    the note names it.

    The interval is the jackknife over 10 groups of images.

    Args:
        kept: share of the variance.

    Example:
        >>> list(SVCCA().figures)
        ['svcca']
    """

    needs = frozenset({"codes", "other_codes"})
    source = "SVCCA: Singular Vector Canonical Correlation Analysis, section 2"
    fewest = 4

    def __init__(self, *, kept: Annotated[float, above(0), at_most(1)] = 0.99) -> None:
        super().__init__()
        self.kept = kept

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "mean canonical correlation of two spaces' main directions"
        return {"svcca": Figure(what, "", 0.0, 1.0, True)}

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the figure."""
        one, other = rows["codes"], rows["other_codes"]
        order = np.random.default_rng(0).permutation(len(ids))
        note = f"shuffled images: {svcca(one, other[order], self.kept):.3g}"
        far = shared_outlier(one, other, ids)
        found = jackknifed(lambda k: {"svcca": svcca(one[k], other[k], self.kept)}, ids, far)
        return {name: add_note(score, note) for name, score in found.items()}


def svcca(one: Array, other: Array, kept: float = 0.99) -> float:
    """Return the mean canonical correlation of codes ``[n, d]`` and ``[n, e]``.

    NaN where a space is constant, or where both together have as many directions as images.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 3))
        >>> round(svcca(x, x @ np.array([[2.0, 1, 0], [0, 1, 0], [0, 0, 5]])), 6)
        1.0
    """
    bases = [_main_directions(x, kept) for x in (one, other)]
    sizes = [basis.shape[1] for basis in bases]
    if min(sizes) == 0 or sum(sizes) >= len(one):
        return np.nan
    correlations = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return float(correlations.clip(max=1).mean())


def _main_directions(codes: Array, kept: float) -> Array:
    """Return orthonormal scores ``[n, k]`` of directions that explain `kept` of the variance."""
    left, singular, _ = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
    share = np.cumsum(np.square(singular))
    if share[-1] <= 0:
        return left[:, :0]
    return left[:, : int(np.searchsorted(share, kept * share[-1])) + 1]
