"""`ms_ssim`: structural similarity at five scales."""

from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from latentbench.metric import Figure
from metrics.pairs.ssim import SSIM


class MultiScaleSSIM(SSIM):
    """Multi-scale structural similarity per image, on images in [0, 1].

    Source: Wang et al., "Multi-scale Structural Similarity for Image Quality Assessment", by
    torchmetrics' own code: five scales with the paper's exponents, negative similarities cut to 0.

    Args:
        against: which images; each gives a column.

    Raises:
        BadInput: images smaller than one window at the last scale.

    Example:
        >>> x = torch.zeros(1, 3, 176, 176)
        >>> MultiScaleSSIM().compare(x, x)
        tensor([1.], dtype=torch.float64)
    """

    name = "ms_ssim"
    figure = Figure("structural similarity at 5 scales", low=0.0, high=1.0, higher_is_better=True)
    source = "Multi-scale Structural Similarity for Image Quality Assessment"
    smallest = 176  # pixels: one window of 11 at the fifth scale, a sixteenth
    instead = "take ssim"
    similarity = staticmethod(multiscale_structural_similarity_index_measure)
