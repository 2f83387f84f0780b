"""`authpct_<judge>` and `ct_<judge>`: are outputs closer to training images than new ones are?"""

from dataclasses import replace

import numpy as np
import torch
from scipy import stats

from latentbench.bounds import SetSize
from latentbench.data.dataset import Dataset, Split
from latentbench.intervals import Kind
from latentbench.metric import Figure
from latentbench.statistics import add_note, rate_score
from latentbench.types import Score
from latentbench.zoo.judges import JudgeName
from metrics.jackknife import Array
from metrics.sets.feature_sets import FeatureSets, Set, too_few
from metrics.sets.neighbours import nearest, nearest_others

COMPONENTS = 64  # principal components in which C_T measures distances


class Memorisation(FeatureSets):
    """Two diagnostics of copying; neither proves its absence, and neither is calibrated.

    authpct: percentage of outputs that are further from their nearest training image than that
    image is from its own nearest neighbour in the training set. A model that underfits scores 100.
    ct: z-scored Mann-Whitney statistic of distances to the nearest training image, outputs against
    held-out images, in 64 principal components of the training images: far below 0 is copying, far
    above 0 underfitting; inside +-3 it says nothing.

    Source: Alaa et al., "How Faithful is your Synthetic Data?", section 3 (authenticity);
    Meehan et al., "A Non-Parametric Test to Detect Data-Copying in Generative Models", section 3
    (C_T of one cell, not averaged over a partition); as in the code dgm-eval.

    Args:
        extractor: judge that gives the features.
        training_split: split that the generator was trained on.
        training_n: number of training images, the first of the split; copies of others are not
            seen.
        reference_split: split of the held-out images.
        reference_n: number of held-out images.

    Example:
        >>> list(Memorisation().figures)
        ['authpct_zoo1', 'ct_zoo1']
    """

    prefix = "authpct"
    source = "How Faithful is your Synthetic Data?, section 3; A Non-Parametric Test to Detect \
Data-Copying in Generative Models, section 3"

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        training_split: Split = "generator",
        training_n: SetSize = 8192,
        reference_split: Split = "test",
        reference_n: SetSize = 2048,
    ) -> None:
        super().__init__(
            extractor=extractor, reference_split=reference_split, reference_n=reference_n
        )
        self.training_split, self.training_n = training_split, training_n

    @property
    def figures(self) -> dict[str, Figure]:
        """Authenticity and C_T."""
        return {
            self.column: Figure(
                f"outputs further from training images than those are, {self.extractor}",
                unit="%", low=0.0, high=100.0, kind=Kind.RATE,
            ),
            f"ct_{self.extractor}": Figure(
                f"z-score of distances to training images against held-out ones, {self.extractor}"
            ),
        }  # fmt: skip

    def compute(self) -> dict[str, Score]:
        """Return both; None for no output."""
        outputs, ids = self.collected()
        if not ids:
            short = add_note(Score(None, 0, note="needs an image"), self.remark())
            return dict.fromkeys(self.figures, short)
        training, held_out = self._training()[0], self.reference()[0]
        rate = rate_score(torch.from_numpy(authentic(outputs, training)), ids)
        percents = {end: 100 * getattr(rate, end) for end in ("value", "low", "high")}
        z = data_copying(outputs, held_out, training)
        note = f"against {len(training)} training images"
        no_interval = "a z-score: inside +-3 it says nothing"
        scores = replace(rate, **percents), Score(z, len(set(ids)), note=no_interval)
        return {
            name: add_note(score, note, self.remark())
            for name, score in zip(self.figures, scores, strict=True)
        }

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: too few images, or training images held out."""
        few = too_few(dataset, self.training_split, self.fewest_real)
        return super().unfed(dataset) or few or self._shared(dataset)

    def _shared(self, dataset: Dataset) -> str | None:
        """Return that some held-out images are training images as well, in words, or None."""
        wanted, size = self.training_n + self.reference_n, dataset.size(self.training_split)
        if self.training_split != self.reference_split or size >= wanted:
            return None
        return (
            f"needs {wanted} images of the split {self.training_split!r}, as its first are the "
            f"training images and its last are held out; {type(dataset).__name__} has {size}"
        )

    def _training(self) -> Set:
        size = self.surroundings.dataset.size(self.training_split)
        return self.real(self.training_split, range(min(size, self.training_n)))


def authentic(outputs: Array, training: Array) -> Array:
    """Return 1 for outputs that are further from training images than those are, else 0.

    Example:
        >>> authentic(np.array([[0.1], [5.0]]), np.array([[0.0], [1.0]])).tolist()
        [0.0, 1.0]
    """
    gaps, place = nearest(outputs, training)
    return (gaps > nearest_others(training)[place]).astype(float)


def data_copying(outputs: Array, held_out: Array, training: Array) -> float:
    """Return C_T: below 0 where outputs are closer to training images than held-out images are.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(90, 4))
        >>> data_copying(x[:30], x[60:], x[:60]) < -3
        True
    """
    if training.shape[1] > COMPONENTS:
        axes = np.linalg.eigh(np.cov(training, rowvar=False))[1][:, -COMPONENTS:]
        outputs, held_out, training = outputs @ axes, held_out @ axes, training @ axes
    made, real = (nearest(x, training)[0] for x in (outputs, held_out))
    n, m = len(made), len(real)
    wins = float(stats.mannwhitneyu(made, real).statistic)
    return (wins - (n * m - 1) / 2) / float(np.sqrt(n * m * (n + m + 1) / 12))
