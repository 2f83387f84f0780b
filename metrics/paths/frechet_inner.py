"""`fd_inner_real_<judge>` and `fd_inner_ends_<judge>`: AID's fidelity with its own distance."""

from latentbench.types import Score
from metrics.paths.inner import InnerDistance
from metrics.sets.feature_sets import Set
from metrics.sets.frechet import FrechetSets, frechet_score


class InnerFrechetDistance(FrechetSets, InnerDistance):
    """Frechet distance of the inner frames of paths to real images, and to the paths' own ends.

    `fd_inner_ends` is AID's fidelity, with the judge's features: the figure for comparison with
    that paper. Biased upwards in the number of frames, so only rows of equal paths and frames
    compare; there is no value below `per_dimension` frames per feature dimension on either side
    (the ends are two a path), and `kd_inner_ends` is the better figure below ten.

    The interval is the jackknife over 10 groups of paths.

    Source: He et al., "AID: Attention Interpolation of Text-to-Image Diffusion", section 4
    (fidelity); Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", section 3.
    Deviation: AID copies images until there are 2048; copies are not counted here.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: frames per feature dimension below which there is no value.

    Example:
        >>> list(InnerFrechetDistance().figures)
        ['fd_inner_real_zoo1', 'fd_inner_ends_zoo1']
    """

    prefix, ends, what = "fd_inner_real", "fd_inner_ends", "Frechet distance"
    counted = "frames"
    source = "AID, section 4: fidelity"

    def distance(self, first: Set, second: Set) -> Score:
        """Return the Frechet distance; None where there are too few frames."""
        smaller = min(len(first[0]), len(second[0]))
        few = self.too_small(smaller, first[0].shape[1])
        return Score(None, len(set(first[1])), note=few) if few else frechet_score(first, second)
