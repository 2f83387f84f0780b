"""On which part of its way does inversion leave the sampler's?"""

from torch import Tensor

from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples

SHARES = (25, 50, 75, 100)  # percent of the inversion's way, from the clean end


class LevelError(SampleMetric):
    """Distance of the inversion from the sampler's own trajectory, a quarter of the way at a time.

    Root mean square over the entries of y_i - x_i at one level, y_i the inversion's latent and x_i
    the sampler's: 0 where inversion follows the sampler. The last figure is the error of the noise
    itself. What a quarter adds is the difference of two figures only roughly: later steps shrink
    what earlier ones have missed by, or make it grow.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", which locates the error in the first steps by swaps; the
    figures are this suite's.

    Example:
        >>> list(LevelError().figures)[0]
        'level_error_25'
    """

    needs = frozenset({"trajectory", "found_trajectory"})
    source = "this suite; There and Back Again, errors of inversion steps"

    @property
    def figures(self) -> dict[str, Figure]:
        """One distance for every quarter of the way."""
        words = "root mean square distance from the sampler after {}% of the inversion's steps"
        return {
            f"level_error_{share}": Figure(words.format(share), "", 0.0, None, False)
            for share in SHARES
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each image ``[b]``."""
        assert samples.trajectory is not None and samples.found_trajectory is not None
        gap = samples.found_trajectory.cpu().double() - samples.trajectory.cpu().double()
        error = gap.flatten(2).square().mean(2).sqrt().flip(1)  # clean end first
        last = error.shape[1] - 1
        places = [round(share * last / 100) for share in SHARES]
        return {name: error[:, k] for name, k in zip(self.figures, places, strict=True)}
