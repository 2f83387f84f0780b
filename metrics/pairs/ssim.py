"""`ssim`: structural similarity."""

from collections.abc import Callable
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from latentbench.errors import NotMeasurable
from latentbench.metric import Figure
from metrics.pairs.pairwise import Pairwise, unit_range

SMALLEST = 11  # pixels: one window


class SSIM(Pairwise):
    """Structural similarity per image, on images in [0, 1].

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural
    Similarity", section III, by torchmetrics' own code: Gaussian window of sigma 1.5, 11 pixels.

    Args:
        against: which images; each gives a column.

    Raises:
        NotMeasurable: images smaller than one window.

    Example:
        >>> SSIM().compare(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
        tensor([1.], dtype=torch.float64)
    """

    name = "ssim"
    figure = Figure("structural similarity", low=-1.0, high=1.0, higher_is_better=True)
    source = "Image Quality Assessment: From Error Visibility to Structural Similarity, section III"
    smallest: ClassVar[int] = SMALLEST
    instead: ClassVar[str] = "leave the metric out"
    similarity: ClassVar[Callable[..., Any]] = staticmethod(structural_similarity_index_measure)

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the similarity of each pair."""
        if min(outputs.shape[-2:]) < self.smallest:
            raise NotMeasurable(
                f"{type(self).__name__} needs images of at least {self.smallest} pixels per side, "
                f"got {tuple(outputs.shape[-2:])}; {self.instead}"
            )
        pair = unit_range(outputs), unit_range(targets)
        return self.similarity(*pair, data_range=1.0, reduction="none")
