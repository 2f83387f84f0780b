"""`dci_*`: disentanglement, completeness and informativeness of a tree ensemble's importances."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
import scipy.stats
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.metrics import r2_score

from latentbench.bounds import between
from latentbench.errors import BadInput
from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import (
    CodeMetric,
    check_pairs,
    chosen,
    held_out,
    left_out,
    that_vary,
)
from metrics.jackknife import Array

TINY = 1e-11  # added before entropies, as in disentanglement_lib


class DCI(CodeMetric):
    """Disentanglement, completeness, informativeness.

    Source: Eastwood and Williams, "A Framework for the Quantitative Evaluation of Disentangled
    Representations", section 2, with the importances of gradient-boosted trees as in
    disentanglement_lib. Factors are continuous, so trees regress and informativeness is R² on
    held-out images, a third of all. D and C read the importances [d, f]: a code is disentangled
    if one factor needs it, a factor complete if one code gives it.

    Deviation: codes of more than `components` dimensions are first reduced to so many principal
    components, since each factor costs n x d x trees; the note says so. D and C then speak of
    principal axes. Factors that do not vary are left out, as in `mig`. No interval: refitting is
    expensive, and importances are not a mean over images.

    Args:
        trees: boosting rounds per factor.
        components: largest number of dimensions that trees are fitted on.

    Example:
        >>> list(DCI().figures)
        ['dci_disentanglement', 'dci_completeness', 'dci_informativeness']
    """

    version = 3
    source = "A Framework for the Quantitative Evaluation of Disentangled Representations, 2"
    fewest = 30

    def __init__(
        self,
        *,
        trees: Annotated[int, between(1, 10_000)] = 100,
        components: Annotated[int, between(2, 10_000)] = 32,
    ) -> None:
        super().__init__()
        self.trees, self.components = trees, components

    @property
    def figures(self) -> dict[str, Figure]:
        """The three figures."""
        return {
            "dci_disentanglement": Figure("1 - entropy of a code's importances", "", 0, 1, True),
            "dci_completeness": Figure("1 - entropy of a factor's importances", "", 0, 1, True),
            "dci_informativeness": Figure("R² of trees on held-out images", "", None, 1, True),
        }

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the three figures."""
        z, y, test = rows["codes"], rows["factors"], held_out(ids)
        note, d = "no interval: trees are fitted once", z.shape[1]
        if d > self.components:
            pca = PCA(self.components, svd_solver="full").fit(z[~test])
            z, note = pca.transform(z), f"{note}; on {self.components} principal axes of {d}"
        known, n = that_vary(y, ~test, test), len(set(ids))
        y, note = chosen(y, known), "; ".join(filter(None, [note, left_out(known)]))
        if min(known.sum(), z.shape[1]) < 2:
            few = f"needs 2 codes, and 2 factors that vary; {note}"
            return dict.fromkeys(self.figures, Score(None, n, note=few))
        importance, r2 = tree_importances((z[~test], y[~test]), (z[test], y[test]), self.trees)
        values = (disentanglement(importance), completeness(importance), float(np.mean(r2)))
        found = zip(self.figures, values, strict=True)
        return {name: Score(value, n, note=note) for name, value in found}


def tree_importances(
    train: tuple[Array, Array], test: tuple[Array, Array], trees: int
) -> tuple[Array, Array]:
    """Return importances ``[d, f]`` of boosted trees, one ensemble per factor, and test R² ``[f]``.

    Args:
        train: codes ``[n, d]`` and factors ``[n, f]`` to fit on.
        test: the same, of other images.
        trees: boosting rounds.
    """
    for codes, factors in (train, test):
        check_pairs(codes, factors, "dci")
    importances, scores = [], []
    for known, wanted in zip(train[1].T, test[1].T, strict=True):
        model = GradientBoostingRegressor(n_estimators=trees, random_state=0).fit(train[0], known)
        importances.append(np.abs(model.feature_importances_))
        scores.append(r2_score(wanted, model.predict(test[0])))
    return np.stack(importances, 1), np.array(scores)


def disentanglement(importance: Array) -> float:
    """Return 1 - the entropy of each code's importances, weighted by the code's whole importance.

    Args:
        importance: non-negative ``[d, f]``; all zero counts as uniform.

    Raises:
        BadInput: fewer than two factors.

    Example:
        >>> round(disentanglement(np.eye(3)), 6)
        1.0
    """
    return _concentration(importance.T)


def completeness(importance: Array) -> float:
    """Return 1 - the entropy of each factor's importances, weighted by the factor's whole.

    Example:
        >>> round(completeness(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])), 6)
        0.5
    """
    return _concentration(importance)


def _concentration(table: Array) -> float:
    """Return 1 - entropy of each column (base: number of rows), weighted by the column's sum."""
    if len(table) < 2:
        raise BadInput(f"dci compares at least 2 codes and 2 factors, got {table.shape}")
    table = table if table.sum() > 0 else np.ones_like(table)
    per_column = 1 - scipy.stats.entropy(table + TINY, base=len(table))
    return float((per_column * table.sum(0) / table.sum()).sum())
