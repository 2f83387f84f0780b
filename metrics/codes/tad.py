"""`tad`: how many attributes does a single code tell, and by how much better than the next?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import scipy.stats

from latentbench.bounds import Share, between
from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, Mask, check_pairs, held_out
from metrics.jackknife import Array

LEAST = 0.05  # share of images that either side of an attribute must have


class TotalAttributeDisentanglement(CodeMetric):
    """Sum over captured attributes of (AUROC of the best code - AUROC of the second best).

    Source: Yeats et al., "NashAE", section 4 (total AUROC difference). An attribute is a factor
    above 1/2. A code's AUROC counts in its better direction. An attribute is captured where the
    best code reaches `captured`, and where no other attribute alone removes more than
    `entangled` of its label's entropy. Deviation: code and direction are chosen on two thirds of
    the images and the AUROC is taken on the rest, where published code chooses and scores on the
    same. Rotated codes score near 0 by design.

    No interval: choice and threshold make the sum jump.

    Args:
        captured: AUROC from which an attribute counts.
        entangled: largest share of an attribute's entropy that another may explain.

    Example:
        >>> list(TotalAttributeDisentanglement().figures)
        ['tad', 'tad_captured']
    """

    source = "NashAE: Disentangling Representations through Adversarial Covariance Minimization, 4"
    fewest = 30

    def __init__(
        self, *, captured: Annotated[float, between(0.5, 1)] = 0.75, entangled: Share = 0.2
    ) -> None:
        super().__init__()
        self.captured, self.entangled = captured, entangled

    @property
    def figures(self) -> dict[str, Figure]:
        """The sum, and how many attributes it is over."""
        return {
            "tad": Figure("sum of AUROC differences of captured attributes", "", 0.0, None, True),
            "tad_captured": Figure("attributes that one code gives", "", 0.0, None, True),
        }

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return both figures."""
        found = tad(rows["codes"], rows["factors"], held_out(ids), self.captured, self.entangled)
        note = f"no interval: a sum over chosen codes; {found.tried} attributes tried"
        n, values = len(set(ids)), (found.total, float(found.captured))
        return {k: Score(v, n, note=note) for k, v in zip(self.figures, values, strict=True)}


@dataclass(frozen=True)
class Told:
    """What single codes tell of attributes.

    Args:
        total: sum of the AUROC differences.
        captured: attributes in the sum.
        tried: attributes of which both sides are seen often enough.
    """

    total: float
    captured: int
    tried: int


def tad(
    codes: Array, factors: Array, test: Mask, captured: float = 0.75, entangled: float = 0.2
) -> Told:
    """Return the total AUROC difference of codes ``[n, d]`` about attributes (factors above 1/2).

    Args:
        codes: ``[n, d]``.
        factors: ``[n, f]`` in [0, 1].
        test: rows on which the chosen codes are scored.
        captured: AUROC from which an attribute counts.
        entangled: largest share of an attribute's entropy that another may explain.
    """
    check_pairs(codes, factors, "tad")
    labels = factors > 0.5
    share = labels.mean(0)
    labels = labels[:, (share >= LEAST) & (share <= 1 - LEAST)]
    first, second = _best_two(codes[~test], labels[~test], codes[test], labels[test])
    alone = explained_by_another(labels) <= entangled
    counts = (first >= captured) & alone
    return Told(float((first - second)[counts].sum()), int(counts.sum()), labels.shape[1])


def _best_two(
    codes: Array, labels: Mask, test_codes: Array, test_labels: Mask
) -> tuple[Array, Array]:
    """Return the test AUROC of the two codes that are best on the training rows ``[a]`` each."""
    seen, unseen = auroc(codes, labels), auroc(test_codes, test_labels)
    unseen = np.where(seen < 0.5, 1 - unseen, unseen)
    order = np.argsort(-np.abs(seen - 0.5), axis=0, kind="stable")
    chance = np.full((1, labels.shape[1]), 0.5)
    ranked = np.concatenate([np.take_along_axis(unseen, order, 0), chance])
    return ranked[0], ranked[1]


def auroc(scores: Array, labels: Mask) -> Array:
    """Return the area under the ROC curve of each score about each label ``[d, a]``; ties half.

    Example:
        >>> auroc(np.array([[1.0], [2.0], [3.0]]), np.array([[False], [True], [True]])).item()
        1.0
    """
    ranks = scipy.stats.rankdata(scores, axis=0)
    yes = labels.sum(0).astype(float)
    sums = ranks.T @ labels
    return (sums - yes * (yes + 1) / 2) / (yes * (len(labels) - yes))


def explained_by_another(labels: Mask) -> Array:
    """Return the largest share of each label's entropy that one other label removes ``[a]``."""
    one = labels.astype(float)
    share = one.mean(0)
    entropies = np.asarray(scipy.stats.entropy(np.stack([share, 1 - share])))
    joint = one.T @ one / len(one)
    cells = [joint, share[:, None] - joint, share - joint, 1 - share[:, None] - share + joint]
    both = scipy.stats.entropy(np.maximum(np.stack(cells), 0.0))
    removed = (entropies[:, None] + entropies - both) / entropies[:, None]
    np.fill_diagonal(removed, 0.0)
    return removed.max(1)
