"""`probe_*`: what does a linear readout of the codes know of the factors?"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from latentbench.bounds import Count
from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note
from latentbench.types import Score
from metrics.codes.code_metric import (
    CodeMetric,
    Mask,
    chosen,
    held_out,
    jackknifed,
    left_out,
    that_vary,
)
from metrics.codes.tad import LEAST, auroc
from metrics.jackknife import Array

PENALTIES = np.logspace(-2, 4, 13)  # tried by generalised cross-validation on the training rows
FEW = 10  # the small set of labels is one in so many


class LinearProbe(CodeMetric):
    """Ridge and logistic regression from codes to known factors, scored on held-out images.

    Source: "Do text-free diffusion models learn discriminative visual representations?", section
    3, and "Diffusion Models Beat GANs on Image Classification", section 3.2, with known factors.
    Codes are standardised and reduced to `components` principal components, so that wide spaces
    have no advantage; a third of the images is held out. `probe_r2` is the mean over factors of
    R² (negative: worse than the mean), `probe_r2_few` the same with a tenth of the labels,
    `probe_auroc` the mean area under the ROC curve for factors above 1/2. Factors that do not vary
    are left out.

    The interval is the jackknife over groups of held-out images: it covers other images, with
    the probe as fitted.

    Args:
        components: principal components that are read, fewer where the codes have fewer.

    Example:
        >>> list(LinearProbe().figures)
        ['probe_r2', 'probe_r2_few', 'probe_auroc']
    """

    version = 3
    source = "Diffusion Models Beat GANs on Image Classification, section 3.2, known factors"
    fewest = 60

    def __init__(self, *, components: Count = 64) -> None:
        super().__init__()
        self.components = components

    @property
    def figures(self) -> dict[str, Figure]:
        """R² with all and with few labels, and the AUROC."""
        return {
            "probe_r2": Figure("R² of a linear readout of factors", "", None, 1.0, True),
            "probe_r2_few": Figure("the same with a tenth of the labels", "", None, 1.0, True),
            "probe_auroc": Figure("AUROC of a linear readout of attributes", "", 0.0, 1.0, True),
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Take the factors' names."""
        super().prepare(surroundings)
        self.names = surroundings.dataset.factor_names

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the three figures."""
        z, y, test = rows["codes"], rows["factors"], held_out(ids)
        varied = that_vary(y, ~test, test)
        if not varied.any():
            none = Score(None, len(set(ids)), note="no factor varies")
            return dict.fromkeys(self.figures, none)
        y = chosen(y, varied)
        few = np.flatnonzero(~test)[::FEW]
        read = self._regress(z[~test], y[~test], z[test])
        read_few = self._regress(z[few], y[few], z[test])
        predicted = self._classify(z[~test], y[~test], z[test])
        seen = [i for i, held in zip(ids, test.tolist(), strict=True) if held]
        known = y[test]

        def statistic(keep: Mask) -> dict[str, float]:
            values = (
                r_squared(known[keep], read[keep]).mean(),
                r_squared(known[keep], read_few[keep]).mean(),
                _mean_auroc(predicted[keep], known[keep]),
            )
            return dict(zip(self.figures, map(float, values), strict=True))

        note = "; ".join(filter(None, [f"{(~test).sum()} images to fit on", left_out(varied)]))
        found = jackknifed(statistic, seen, note)
        names = [self.names[k] for k in np.flatnonzero(varied)]
        extremes = _extremes(r_squared(known, read), names)
        return found | {"probe_r2": add_note(found["probe_r2"], extremes)}

    def _regress(self, codes: Array, factors: Array, unseen: Array) -> Array:
        model = self._reduced(codes, RidgeCV(PENALTIES, alpha_per_target=True))
        return model.fit(codes, factors).predict(unseen)

    def _classify(self, codes: Array, factors: Array, unseen: Array) -> Array:
        """Return the decision values ``[unseen, f]``; 0 for a factor with one side only."""
        found = np.zeros((len(unseen), factors.shape[1]))
        for k, labels in enumerate(factors.T > 0.5):
            if LEAST <= labels.mean() <= 1 - LEAST:
                model = self._reduced(codes, LogisticRegression(max_iter=1000))
                found[:, k] = model.fit(codes, labels).decision_function(unseen)
        return found

    def _reduced(self, codes: Array, model: RidgeCV | LogisticRegression) -> Pipeline:
        count = min(self.components, codes.shape[1], len(codes) - 1)
        return make_pipeline(StandardScaler(), PCA(count, svd_solver="full"), model)


def _extremes(r2: Array, names: Sequence[str]) -> str:
    """Return the best and the worst read factor, in words."""
    best, worst = int(r2.argmax()), int(r2.argmin())
    return f"{names[best]} {r2[best]:.2f} to {names[worst]} {r2[worst]:.2f}"


def r_squared(known: Array, read: Array) -> Array:
    """Return 1 - squared error / variance of each column ``[f]``.

    Example:
        >>> r_squared(np.array([[0.0], [1.0]]), np.array([[0.5], [0.5]])).tolist()
        [0.0]
    """
    return 1 - np.square(known - read).mean(0) / known.var(0)


def _mean_auroc(predicted: Array, factors: Array) -> float:
    """Return the mean over attributes that have both sides of the AUROC of its own column."""
    labels = factors > 0.5
    both = labels.any(0) & ~labels.all(0)
    return float(np.diag(auroc(predicted[:, both], labels[:, both])).mean())
