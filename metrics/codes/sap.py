"""`sap`: does one code alone predict each factor linearly?"""

from collections.abc import Mapping, Sequence

import numpy as np

from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import (
    CodeMetric,
    check_pairs,
    chosen,
    jackknifed,
    left_out,
    top_gap,
)
from metrics.jackknife import Array

FLAT = 1e-12  # variance below which a code says nothing, as in disentanglement_lib


class SeparatedAttributePredictability(CodeMetric):
    """Separated attribute predictability: R² of the best code minus that of the second best.

    Source: Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled
    Observations", section 3, for continuous factors: the score of a code is its squared
    correlation with the factor (disentanglement_lib, `continuous_factors=True`), mean over
    factors that vary. Nothing is fitted beyond one covariance, so all images count.

    The interval is the jackknife over 10 groups of images.

    Example:
        >>> list(SeparatedAttributePredictability().figures)
        ['sap']
    """

    version = 3
    source = "Variational Inference of Disentangled Latent Concepts, section 3"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "R² of a factor on its best code minus that on the second best"
        return {"sap": Figure(what, "", 0.0, 1.0, True)}

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the score."""
        z, y = rows["codes"], rows["factors"]
        note = left_out(y.var(0) > FLAT)
        return jackknifed(lambda keep: {"sap": sap(z[keep], y[keep])}, ids, note)


def sap(codes: Array, factors: Array) -> float:
    """Return the separated attribute predictability; factors that do not vary are left out.

    NaN where none varies.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(1000, 2))
        >>> round(sap(x, x), 2)
        1.0
    """
    check_pairs(codes, factors, "sap")
    known = factors.var(0) > FLAT
    if not known.any():
        return float("nan")
    return float(top_gap(squared_correlations(codes, chosen(factors, known))).mean())


def squared_correlations(codes: Array, factors: Array) -> Array:
    """Return R² of each factor on each code ``[d, f]``; 0 for a code or factor that is flat."""
    z, y = codes - codes.mean(0), factors - factors.mean(0)
    spread = np.outer(z.var(0), y.var(0))
    flat = np.minimum.outer(z.var(0), y.var(0)) <= FLAT
    squares = np.square(z.T @ y / len(z))
    return np.where(flat, 0.0, squares / np.where(flat, 1.0, spread))
