"""`kd_subsets_<judge>`: the kernel distance as papers print it, a mean over random subsets."""

import numpy as np

from latentbench.bounds import Count, NumpySeed, SetSize
from latentbench.data.dataset import Split
from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Score
from latentbench.zoo.judges import JudgeName
from metrics.jackknife import Array
from metrics.sets.kernel import KernelDistance, kernel_distance

NO_INTERVAL = "no interval: subsets share images, so their spread is not a standard error"


class SubsetKernelDistance(KernelDistance):
    """Mean kernel distance of random subsets of outputs and real images.

    The published form, for agreement with published figures only: `kd` takes all pairs, so it has
    less variance, an interval, and no random numbers. Subsets are drawn as clean-fid draws them
    after `numpy.random.seed(seed)`, without replacement; real images first.

    Source: Binkowski et al., "Demystifying MMD GANs", section 4; clean-fid's `kernel_distance`.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.
        subsets: number of subsets.
        subset_size: images of each side in a subset, fewer where a set is smaller.
        seed: of the draws.

    Example:
        >>> SubsetKernelDistance().column
        'kd_subsets_zoo1'
    """

    prefix = "kd_subsets"
    source = "Demystifying MMD GANs, section 4; clean-fid"
    fewest = 2

    def __init__(
        self,
        *,
        extractor: JudgeName = "zoo1",
        reference_split: Split = "test",
        reference_n: SetSize = 2048,
        subsets: Count = 100,
        subset_size: SetSize = 1000,
        seed: NumpySeed = 0,
    ) -> None:
        super().__init__(
            extractor=extractor, reference_split=reference_split, reference_n=reference_n
        )
        self.subsets, self.subset_size, self.seed = subsets, subset_size, seed

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"mean kernel distance of {self.subsets} subsets, features of {self.extractor}"
        return {self.column: Figure(what, higher_is_better=False)}

    def compute(self) -> dict[str, Score]:
        """Return the mean; None below two images."""
        outputs, ids = self.collected()
        n = len(set(ids))
        if n < self.fewest:
            return {self.column: add_note(Score(None, n, note="needs 2 images"), self.remark())}
        drawn = self.subsets, self.subset_size, self.seed
        value = subset_kernel_distance(outputs, self.reference()[0], *drawn)
        return {self.column: add_note(Score(value, n, note=NO_INTERVAL), self.remark())}


def subset_kernel_distance(
    a: Array, b: Array, subsets: int = 100, size: int = 1000, seed: int = 0
) -> float:
    """Return the mean kernel distance of subsets of features ``[n, d]`` and ``[m, d]``.

    Args:
        a: features of the outputs.
        b: features of real images.
        subsets: number of subsets.
        size: rows of each side in a subset.
        seed: of numpy's legacy generator.

    Example:
        >>> x = np.eye(4)
        >>> subset_kernel_distance(x, x, subsets=2) == subset_kernel_distance(x, x, subsets=1)
        True
    """
    random, size = np.random.RandomState(seed), min(len(a), len(b), size)
    names = [f"a{k}" for k in range(size)], [f"b{k}" for k in range(size)]
    values = []
    for _ in range(subsets):
        real, made = (random.choice(len(x), size, replace=False) for x in (b, a))
        values.append(kernel_distance(a[made], names[0], b[real], names[1]))
    return float(np.mean(values))
