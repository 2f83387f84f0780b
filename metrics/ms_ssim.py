"""`ms_ssim`: structural similarity at five scales."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from latentbench.errors import BadInput
from latentbench.metric import Figure
from metrics.pairwise import Pairwise, unit_range

SMALLEST = 161  # pixels: one window of 11 at the fifth scale


class MultiScaleSSIM(Pairwise):
    """Multi-scale structural similarity per image, on images in [0, 1].

    Source: Wang et al., "Multi-scale Structural Similarity for Image Quality Assessment", by
    torchmetrics' own code: five scales with the paper's exponents, negative similarities cut to 0.

    Args:
        against: which images; each gives a column.

    Raises:
        BadInput: images smaller than one window at the last scale.

    Example:
        >>> x = torch.zeros(1, 3, 161, 161)
        >>> MultiScaleSSIM().compare(x, x)
        tensor([1.], dtype=torch.float64)
    """

    name = "ms_ssim"
    figure = Figure("structural similarity at 5 scales", low=0.0, high=1.0, higher_is_better=True)
    source = "Multi-scale Structural Similarity for Image Quality Assessment"

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n"]:
        """Return the similarity of each pair."""
        if min(outputs.shape[-2:]) < SMALLEST:
            raise BadInput(
                f"MultiScaleSSIM needs images of at least {SMALLEST} pixels per side, got "
                f"{tuple(outputs.shape[-2:])}; take ssim"
            )
        found = multiscale_structural_similarity_index_measure(
            unit_range(outputs), unit_range(targets), data_range=1.0, reduction="none"
        )
        assert isinstance(found, torch.Tensor)
        return found
