"""`kid_domain`: the published kernel Inception distance, to images of the second domain."""

from typing import ClassVar

from latentbench.metric import Figure
from metrics.sets.kid import KernelInceptionDistance


class DomainKernelInceptionDistance(KernelInceptionDistance):
    """The published KID of the outputs to real images of the data set's second domain.

    Source: Binkowski et al., "Demystifying MMD GANs", section 4; clean-fid's `compute_kid`; between
    translations and real images of the target domain as in the tables of CycleDiffusion.

    Args:
        reference_split: split of the real images.
        reference_n: number of real images.
        subsets: number of subsets.
        subset_size: images of each side in a subset, fewer where a set is smaller.
        seed: of the draws.

    Example:
        >>> DomainKernelInceptionDistance().column
        'kid_domain'
    """

    second: ClassVar[bool] = True

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "kid_domain"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"KID to real images of the second domain, mean over {self.subsets} subsets"
        return {self.column: Figure(f"{what}, clean-fid's mode clean", higher_is_better=False)}
