"""`precision_`, `recall_`, `density_` and `coverage_<judge>`: do the sets cover each other?"""

from collections.abc import Sequence

import numpy as np

from latentbench.bounds import Count, SetSize
from latentbench.data.dataset import Split
from latentbench.intervals import jackknife_rate
from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Score
from latentbench.zoo.judges import JudgeName
from metrics.half_samples import Masks, half_replicates, halves, too_few_halves
from metrics.jackknife import Array, replicated_score
from metrics.sets.feature_sets import FeatureSets, Set
from metrics.sets.neighbours import among_itself, squared_distances

NAMES = ("precision", "recall", "density", "coverage")
SEARCHED = 4  # times k: neighbours among which the k-th is sought first


class PrecisionRecall(FeatureSets):
    """Precision, recall, density and coverage, by balls around each image to its k-th neighbour.

    precision: share of outputs in at least one ball of a real image (are they real?). recall:
    share of real images in at least one ball of an output (is all there?). density: mean number
    of real balls that hold an output, / k; may exceed 1, and one far outlier does not lift it.
    coverage: share of real balls that hold an output. Images nearer to the middle than real ones
    lie in more balls, so more density or coverage is not always better: neither has a direction.

    Source: Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative
    Models", section 3; Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative
    Models", section 3, and the code `prdc`: Euclidean, strict <, a row is not its own neighbour.

    All four depend on the numbers of images, and equal laws do not give 1: the note gives what
    real images of the same number score. A block of distances is held at a time.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.
        k: which neighbour a ball reaches.

    Example:
        >>> list(PrecisionRecall().figures)
        ['precision_zoo1', 'recall_zoo1', 'density_zoo1', 'coverage_zoo1']
    """

    prefix = "precision"
    source = "Reliable Fidelity and Diversity Metrics for Generative Models, section 3"

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        reference_split: Split = "test",
        reference_n: SetSize = 2048,
        k: Count = 5,
    ) -> None:
        super().__init__(
            extractor=extractor, reference_split=reference_split, reference_n=reference_n
        )
        self.k, self.fewest = k, k + 1

    @property
    def figures(self) -> dict[str, Figure]:
        """The four figures."""
        return {
            f"{name}_{self.extractor}": Figure(
                f"{name} of outputs against real images, k = {self.k}, {self.extractor}",
                low=0.0,
                high=None if name == "density" else 1.0,
                higher_is_better=True if name in ("precision", "recall") else None,
            )
            for name in NAMES
        }

    def compute(self) -> dict[str, Score]:
        """Return the figures; None below k + 1 images on either side."""
        outputs, real = self.collected(), self.reference()
        n, few = len(set(outputs[1])), min(len(outputs[1]), len(real[1]))
        if few < self.fewest:
            short = Score(None, n, note=f"{few} images, at least {self.fewest} needed")
            return dict.fromkeys(self.figures, add_note(short, self.remark()))
        scores, other = prdc_scores(outputs, real, self.k), self.other_real(n)
        best = None if other is None or n < self.fewest else prdc(other[0], real[0], self.k)
        return {
            name: add_note(
                score,
                "" if best is None else f"real against real: {best[NAMES[place]]:.4g}",
                self.remark(),
            )
            for place, (name, score) in enumerate(zip(self.figures, scores, strict=True))
        }


def prdc(a: Array, b: Array, k: int = 5) -> dict[str, float]:
    """Return the four figures of outputs ``[n, d]`` against real images ``[m, d]``.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> prdc(x, x)["coverage"]
        1.0
    """
    made, real = (np.ones((1, len(x)), bool) for x in (a, b))
    return dict(zip(NAMES, _figures(a, b, made, real, k)[0].tolist(), strict=True))


def prdc_scores(outputs: Set, real: Set, k: int) -> list[Score]:
    """Return the four figures with intervals by half-samples, from one pass over all pairs."""
    n, why_not = len(set(outputs[1])), too_few_halves(outputs[1], real[1], k=k)
    made, theirs = (_kept(ids, not why_not) for _, ids in (outputs, real))
    values, *of_halves = _figures(outputs[0], real[0], made, theirs, k)
    if why_not:
        return [Score(float(value), n, note=why_not) for value in values]
    return [
        _score(name, float(value), n, found)
        for name, value, found in zip(NAMES, values, np.transpose(of_halves), strict=True)
    ]


def _score(name: str, value: float, n: int, of_halves: Array) -> Score:
    """Return the score of a figure: density is a mean, the others are shares."""
    replicates = half_replicates(value, of_halves, is_share=name != "density")
    if name == "density":
        return replicated_score(value, n, replicates)
    low, high = jackknife_rate(value, replicates, n)
    return Score(value, n, low, high, replicates=replicates)


def _kept(ids: Sequence[str], with_halves: bool) -> Masks:
    """Return which rows stay: all, then those of each half, ``[1 + 22, n]``."""
    every = np.ones((1, len(ids)), bool)
    return np.concatenate([every, halves(ids)]) if with_halves else every


def _figures(a: Array, b: Array, a_kept: Masks, b_kept: Masks, k: int) -> Array:
    """Return the four figures for each choice of rows, ``[choices, 4]``."""
    a_balls, b_balls = _balls(a, a_kept, k), _balls(b, b_kept, k)
    holding = np.zeros(a_kept.shape)  # number of real balls that hold an output
    reached, covered = np.zeros(b_kept.shape, bool), np.zeros(b_kept.shape, bool)
    for rows, gaps in squared_distances(a, b):
        for r, kept in enumerate(a_kept[:, rows]):
            inside = gaps < b_balls[r]
            holding[r, rows] = inside.sum(1)
            covered[r] |= inside[kept].any(0)
            reached[r] |= (gaps < a_balls[r, rows, None]).any(0)
    found = []
    for r, (mine, theirs) in enumerate(zip(a_kept, b_kept, strict=True)):
        held = holding[r, mine]
        found.append([(held > 0).mean(), reached[r, theirs].mean(), held.mean() / k,
                      covered[r, theirs].mean()])  # fmt: skip
    return np.array(found)


def _balls(x: Array, kept: Masks, k: int) -> Array:
    """Return the squared radius of each row's ball ``[choices, n]``; -1 for rows left out."""
    radii, most = np.full(kept.shape, -1.0), min(len(x), SEARCHED * k)
    for rows, gaps in among_itself(x):
        near = np.argpartition(gaps, most - 1, axis=1)[:, :most]
        order = np.take_along_axis(gaps, near, 1).argsort(1)
        near, each = np.take_along_axis(near, order, 1), np.arange(len(gaps))
        for r, mask in enumerate(kept):
            stays = mask[near].cumsum(1)
            radius = gaps[each, near[each, (stays == k).argmax(1)]]
            few = stays[:, -1] < k  # most neighbours are left out
            radius[few] = np.partition(gaps[few][:, mask], k - 1, axis=1)[:, k - 1]
            radii[r, rows] = radius
    return np.where(kept, radii, -1.0)
