"""`inception_score`: are samples recognised, and is every class there?"""

import numpy as np

from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note
from latentbench.types import Score
from metrics.jackknife import Array
from metrics.networks.inception import PORTED, InceptionLogits, ported
from metrics.sets.feature_sets import FeatureSets

SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's default
NO_INTERVAL = "no interval: the splits' spread ({:.3g}) is that of a tenth of the images"


class InceptionScore(FeatureSets):
    """Inception score, exp(E KL(p(y|x) || p(y))), mean over 10 splits, as torch-fidelity has it.

    It knows no real images, and its classes are ImageNet's: on faces, or on anything else that is
    not ImageNet, it says little. Biased in n: compare at equal n only.

    Source: Salimans et al., "Improved Techniques for Training GANs", section 4; torch-fidelity's
    `isc_features_to_metric` with its network, its logits without bias and its shuffling.

    Raises:
        Nothing: with fewer than 10 images there is no value, and the note says so.

    Example:
        >>> list(InceptionScore().figures)
        ['inception_score']
    """

    source = "Improved Techniques for Training GANs, section 4; torch-fidelity"
    weights = (PORTED,)
    fewest = SPLITS
    fewest_real = 0

    def __init__(self) -> None:
        super().__init__(reference_n=0)

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "inception_score"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "Inception score, mean over 10 splits"
        return {self.column: Figure(what, low=1.0, high=1008.0, higher_is_better=True)}

    def load(self, surroundings: Surroundings) -> InceptionLogits:
        """Return the network; its hash is checked before the file is opened."""
        network = ported(PORTED.state(surroundings.weights_dir), "logits_unbiased")
        return InceptionLogits(network, PORTED.digest, surroundings.device)

    def compute(self) -> dict[str, Score]:
        """Return the score; None below one image a split."""
        logits, ids = self.collected()
        n = len(set(ids))
        if n < self.fewest:
            few = Score(None, n, note=f"{n} images, at least {self.fewest} needed")
            return {self.column: add_note(few, self.remark())}
        values = inception_scores(logits)
        note = NO_INTERVAL.format(float(values.std()))
        return {self.column: add_note(Score(float(values.mean()), n, note=note), self.remark())}


def inception_scores(logits: Array, splits: int = SPLITS) -> Array:
    """Return the score of each split of shuffled logits ``[n, c]``.

    Example:
        >>> inception_scores(np.zeros((20, 5)))[0]
        np.float64(1.0)
    """
    shuffled = logits[np.random.RandomState(SHUFFLE_SEED).permutation(len(logits))]
    n = len(shuffled)
    parts = [shuffled[k * n // splits : (k + 1) * n // splits] for k in range(splits)]
    return np.array([_score(part) for part in parts])


def _score(logits: Array) -> float:
    top = logits.max(1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    p = np.exp(log_p)
    divergence = (p * (log_p - np.log(p.mean(0)))).sum(1)
    return float(np.exp(divergence.mean()))
