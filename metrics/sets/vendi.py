"""`vendi_<judge>`: how many different images a set holds, in effect."""

import numpy as np

from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Score
from metrics.jackknife import Array, groups, jackknife_score, too_few
from metrics.sets.feature_sets import FeatureSets, Set


class VendiScore(FeatureSets):
    """Vendi score of the outputs: the exponential of the entropy of their similarities.

    exp(-sum_i l_i log l_i), l the eigenvalues of K / n and K the cosines of the features: 1 for
    copies of one image, n for n orthogonal ones, never above the number of dimensions. Needs no
    real images, and says nothing of realism: noise scores high. It grows with n, so the note gives
    what real images of the same number score.

    Source: Friedman and Dieng, "The Vendi Score", definition 3.1, order 1.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images, of which as many as there are outputs are scored.

    Example:
        >>> VendiScore().column
        'vendi_zoo1'
    """

    prefix = "vendi"
    source = "The Vendi Score: A Diversity Evaluation Metric for Machine Learning, definition 3.1"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"effective number of different outputs, features of {self.extractor}"
        return {self.column: Figure(what, low=1.0, higher_is_better=True)}

    def compute(self) -> dict[str, Score]:
        """Return the score; None for no image."""
        outputs = self.collected()
        n = len(set(outputs[1]))
        if n == 0:
            return {self.column: add_note(Score(None, 0, note="needs an image"), self.remark())}
        real = self.reference()[0][:n]
        note = f"{len(real)} real images: {vendi(real):.4g}"
        return {self.column: add_note(vendi_score(outputs), note, self.remark())}


def vendi_score(outputs: Set) -> Score:
    """Return the Vendi score of (features, ids), with its jackknife interval."""
    features, ids = outputs
    group = groups(ids)
    return jackknife_score(
        lambda kept: vendi(features[np.isin(group, kept)]), len(set(ids)), too_few(ids)
    )


def vendi(features: Array) -> float:
    """Return the Vendi score of features ``[n, d]``.

    Example:
        >>> round(vendi(np.eye(3)), 9)
        3.0
    """
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    x = features / np.maximum(norms, np.finfo(float).tiny)
    cosines = x @ x.T if len(x) < x.shape[1] else x.T @ x  # the same eigenvalues, and zeros
    l = np.linalg.eigvalsh(cosines / len(x)).clip(0)  # noqa: E741
    return float(np.exp(-(l * np.log(np.where(l > 0, l, 1.0))).sum()))
