"""`fd_infinity_<judge>`: the Frechet distance extrapolated to infinitely many outputs."""

import numpy as np

from latentbench.bounds import Count, NumpySeed, SetSize
from latentbench.data.dataset import Split
from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Score
from latentbench.zoo.judges import JudgeName
from metrics.jackknife import Array
from metrics.sets.feature_sets import FeatureSets
from metrics.sets.moments import gaussian, gaussian_distance

SIZES = 15  # numbers of outputs, from the smallest to all
SMALLEST = 5000  # outputs, or a tenth of them where there are fewer
PER_DIMENSION = 2  # outputs per feature dimension, at the smallest size
NO_INTERVAL = "no interval: the fit's subsets share images; repeat over seeds"


class FrechetInfinity(FeatureSets):
    """Frechet distance without the bias of finitely many outputs.

    Distances of 15 numbers of outputs, `subsets` random subsets each, to one set of real images;
    the intercept of the line through them over 1 / n. The bias of finitely many real images stays.

    Source: Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find
    them", section 4. Deviations: several subsets a size, from a seeded generator; no size below 2
    outputs per feature dimension, where the distance is not linear in 1 / n.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.
        subsets: random subsets at each size.
        seed: of the subsets.

    Example:
        >>> FrechetInfinity().column
        'fd_infinity_zoo1'
    """

    prefix = "fd_infinity"
    source = "Effectively Unbiased FID and Inception Score and where to find them, section 4"

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        reference_split: Split = "test",
        reference_n: SetSize = 2048,
        subsets: Count = 4,
        seed: NumpySeed = 0,
    ) -> None:
        super().__init__(
            extractor=extractor, reference_split=reference_split, reference_n=reference_n
        )
        self.subsets, self.seed = subsets, seed

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"Frechet distance extrapolated to all outputs, features of {self.extractor}"
        return {self.column: Figure(what, higher_is_better=False)}

    def compute(self) -> dict[str, Score]:
        """Return the intercept; None where the smallest subsets would be too small."""
        outputs, ids = self.collected()
        real, n = self.reference()[0], len(set(ids))
        least = 2 * PER_DIMENSION * real.shape[1]
        if min(len(outputs), len(real)) < least:
            few = f"{min(len(outputs), len(real))} images for {real.shape[1]} feature dimensions"
            short = Score(None, n, note=f"{few}, at least {least} needed")
            return {self.column: add_note(short, self.remark())}
        value = frechet_infinity(outputs, real, self.subsets, self.seed)
        return {self.column: add_note(Score(value, n, note=NO_INTERVAL), self.remark())}


def frechet_infinity(a: Array, b: Array, subsets: int = 4, seed: int = 0) -> float:
    """Return the extrapolated distance of outputs ``[n, d]`` to real features ``[m, d]``.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(400, 2))
        >>> abs(frechet_infinity(x[:200], x[200:])) < 0.1
        True
    """
    real, n = gaussian(b), len(a)
    smallest = max(min(SMALLEST, n // 10), PER_DIMENSION * a.shape[1])
    random = np.random.default_rng(seed)
    sizes = np.linspace(smallest, n, SIZES).astype(int).repeat(subsets)
    found = [
        gaussian_distance(gaussian(a[random.choice(n, size, replace=False)]), real)
        for size in sizes.tolist()
    ]
    return float(np.polyfit(1 / sizes, found, 1)[1])
