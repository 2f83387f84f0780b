"""`mse`: mean squared error."""

from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure
from metrics.pairs.pairwise import Pairwise, unit_range


class MeanSquaredError(Pairwise):
    """Mean squared error per image, on images in [0, 1].

    Args:
        against: which images; each gives a column.

    Example:
        >>> MeanSquaredError().compare(-torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
        tensor([1.], dtype=torch.float64)
    """

    name = "mse"
    figure = Figure("mean squared error", low=0.0, high=1.0, higher_is_better=False)
    source = "mean over pixels and channels of the squared difference, images in [0, 1]"

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the error of each pair."""
        return (unit_range(outputs) - unit_range(targets)).square().mean((1, 2, 3))
