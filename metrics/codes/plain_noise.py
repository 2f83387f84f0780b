"""Does inverted noise lack variance where the image is plain?"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, pad

from latentbench.bounds import Positive
from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples

FEWEST = 8  # cells of a region whose standard deviation is measured


class PlainNoise(SampleMetric):
    """Standard deviation of inverted noise in plain and in textured regions of the image.

    A pixel is plain where (|dx| + |dy|) / 2, of forward differences, is below a threshold in every
    channel; a cell of the noise is plain where all of its pixels are. The gap is the textured
    regions' standard deviation minus the plain ones': 0 for true noise, above 0 where inversion
    leaves plain regions too smooth. Images with fewer than 8 cells of one kind have no value of it.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", errors of plain and non-plain regions.

    Args:
        threshold: of the differences, in the units of images in [-1, 1].

    Example:
        >>> list(PlainNoise().figures)
        ['noise_std_plain', 'noise_std_textured', 'noise_plain_gap']
    """

    needs = frozenset({"noise", "sources"})
    source = "There and Back Again, plain and non-plain regions"

    def __init__(self, *, threshold: Positive = 0.025) -> None:
        super().__init__()
        self.threshold = threshold

    @property
    def figures(self) -> dict[str, Figure]:
        """Both deviations, and their difference."""
        return {
            "noise_std_plain": Figure("standard deviation where the image is plain", low=0.0),
            "noise_std_textured": Figure("standard deviation where it is not", low=0.0),
            "noise_plain_gap": Figure("textured minus plain; 0 for true noise"),
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each image ``[b]``."""
        assert samples.noise is not None and samples.sources is not None
        noise = samples.noise.cpu().double()
        plain = plain_cells(samples.sources.cpu(), self.threshold, noise.shape[2:])
        found = [
            torch.stack([_std(row[:, mask]) for row, mask in zip(noise, masks, strict=True)])
            for masks in (plain, ~plain)
        ]
        return dict(zip(self.figures, (*found, found[1] - found[0]), strict=True))


def plain_cells(
    images: Float[Tensor, "b 3 h w"], threshold: float, size: tuple[int, ...]
) -> Tensor:
    """Return whether each cell of a map of this size holds plain pixels alone, ``[b, *size]``.

    Example:
        >>> image = torch.zeros(1, 3, 4, 4)
        >>> image[..., 3, 3] = 1
        >>> plain_cells(image, 0.025, (2, 2))[0].tolist()
        [[True, True], [True, False]]
    """
    dx = pad(images.diff(dim=3).abs(), (0, 1))
    dy = pad(images.diff(dim=2).abs(), (0, 0, 0, 1))
    textured = ((dx + dy) / 2 >= threshold).any(1, keepdim=True).float()
    return adaptive_max_pool2d(textured, size)[:, 0] == 0


def _std(cells: Float[Tensor, "c n"]) -> Tensor:
    """Return the standard deviation, NaN of too few cells."""
    if cells.shape[1] < FEWEST:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return cells.std(correction=0)
