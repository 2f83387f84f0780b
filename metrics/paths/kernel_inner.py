"""`kd_inner_real_<judge>` and `kd_inner_ends_<judge>`: do the inner frames of a path look right?"""

from latentbench.types import Score
from metrics.paths.inner import InnerDistance
from metrics.sets.feature_sets import Set
from metrics.sets.kernel import kernel_score


class InnerKernelDistance(InnerDistance):
    """Kernel distance of the inner frames of paths to real images, and to the paths' own ends.

    `kd_inner_ends` is AID's fidelity with an unbiased distance for FID: how far interpolation
    leaves the model's own output distribution. Neither is realism: what lies between faces varies
    less than faces do, so a perfect path differs from real images as a set, and can be further from
    them than a cross-fade; see `inner_projection`. Pairs of one path are left out.

    Source: He et al., "AID: Attention Interpolation of Text-to-Image Diffusion", section 4
    (fidelity); Binkowski et al., "Demystifying MMD GANs", section 4.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.

    Example:
        >>> list(InnerKernelDistance().figures)
        ['kd_inner_real_zoo1', 'kd_inner_ends_zoo1']
    """

    prefix, ends, what = "kd_inner_real", "kd_inner_ends", "kernel distance"
    source = "AID, section 4: fidelity; Demystifying MMD GANs, section 4"

    def distance(self, first: Set, second: Set) -> Score:
        """Return the kernel distance."""
        return kernel_score(first, second)
