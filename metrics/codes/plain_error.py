"""Is noise found less well where the image is plain?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Positive
from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples
from metrics.codes.plain_noise import FEWEST, plain_cells


class PlainError(SampleMetric):
    """Distance of inverted from true noise in plain and in textured regions of the image.

    Root mean square over the cells of one kind, as `noise_distance` is over all cells. Regions and
    threshold are those of `PlainNoise`; images with fewer than 8 cells of one kind have no value of
    it.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", errors of plain and non-plain regions. Deviation: root mean
    squares, where the paper's kind of mean is not known.

    Args:
        threshold: of the differences, in the units of images in [-1, 1].

    Example:
        >>> list(PlainError().figures)
        ['noise_error_plain', 'noise_error_textured', 'noise_error_gap']
    """

    needs = frozenset({"noise", "codes", "sources"})
    source = "There and Back Again, plain and non-plain regions"

    def __init__(self, *, threshold: Positive = 0.025) -> None:
        super().__init__()
        self.threshold = threshold

    @property
    def figures(self) -> dict[str, Figure]:
        """Both distances, and their difference."""
        words = "root mean square of inverted minus true noise where the image is {}"
        return {
            "noise_error_plain": Figure(words.format("plain"), "", 0.0, None, False),
            "noise_error_textured": Figure(words.format("not plain"), "", 0.0, None, False),
            "noise_error_gap": Figure("plain minus textured; above 0: plain regions are worse"),
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each image ``[b]``."""
        assert samples.noise is not None
        assert samples.codes is not None and samples.sources is not None
        noise = samples.noise.cpu().double()
        gap = noise - samples.codes.cpu().double().reshape(noise.shape)
        plain = plain_cells(samples.sources.cpu(), self.threshold, noise.shape[2:])
        found = [
            torch.stack([_size(row[:, mask]) for row, mask in zip(gap, masks, strict=True)])
            for masks in (plain, ~plain)
        ]
        return dict(zip(self.figures, (*found, found[0] - found[1]), strict=True))


def _size(cells: Float[Tensor, "c n"]) -> Tensor:
    """Return the root mean square, NaN of too few cells."""
    if cells.shape[1] < FEWEST:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return cells.square().mean().sqrt()
