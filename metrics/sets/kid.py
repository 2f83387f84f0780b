"""`kid`: the published kernel Inception distance."""

from latentbench.bounds import Count, NumpySeed, SetSize
from latentbench.data.dataset import Split
from latentbench.metric import Figure, Surroundings
from metrics.networks.inception import TORCHSCRIPT, InceptionFeatures, load_inception
from metrics.sets.kernel_subsets import SubsetKernelDistance


class KernelInceptionDistance(SubsetKernelDistance):
    """The published KID: clean-fid's network, clean resizing and mean over random subsets.

    Switched on by the original weights only; not multiplied by 1000, as many tables are. The
    subsets are those that clean-fid draws after `numpy.random.seed(seed)`.

    Source: Binkowski et al., "Demystifying MMD GANs", section 4; clean-fid's `compute_kid`.

    Args:
        reference_split: split of the real images.
        reference_n: number of real images.
        subsets: number of subsets.
        subset_size: images of each side in a subset, fewer where a set is smaller.
        seed: of the draws.

    Example:
        >>> KernelInceptionDistance().column
        'kid'
    """

    source = "Demystifying MMD GANs, section 4; clean-fid"
    weights = (TORCHSCRIPT,)

    def __init__(
        self,
        *,
        reference_split: Split = "test",
        reference_n: SetSize = 10_000,
        subsets: Count = 100,
        subset_size: SetSize = 1000,
        seed: NumpySeed = 0,
    ) -> None:
        super().__init__(
            reference_split=reference_split,
            reference_n=reference_n,
            subsets=subsets,
            subset_size=subset_size,
            seed=seed,
        )

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "kid"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"KID, mean over {self.subsets} subsets, clean-fid's mode clean"
        return {self.column: Figure(what, higher_is_better=False)}

    def load(self, surroundings: Surroundings) -> InceptionFeatures:
        """Return the network; its hash is checked before the file is opened."""
        return load_inception("clean", surroundings)
