"""`psnr`: peak signal-to-noise ratio."""

from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure
from metrics.pairs.pairwise import Pairwise, unit_range

MOST = 100.0  # dB, of equal images
SMALLEST = 0.1  # dB: the smallest difference that matters


class PSNR(Pairwise):
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) per image in dB, on images in [0, 1].

    Equal to torchmetrics' `peak_signal_noise_ratio(data_range=1)` image by image, except that it
    ends at 100 dB, so that an exact reconstruction has a finite mean.

    Args:
        against: which images; each gives a column.

    Example:
        >>> PSNR().compare(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)).round()
        tensor([20.], dtype=torch.float64)
    """

    name = "psnr"
    figure = Figure("peak signal-to-noise ratio", "dB", 0.0, MOST, True, smallest=SMALLEST)
    source = "10 log10(1 / MSE), images in [0, 1]"

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the ratio of each pair."""
        error = (unit_range(outputs) - unit_range(targets)).square().mean((1, 2, 3))
        return -10 * error.clamp_min(10 ** (-MOST / 10)).log10()
