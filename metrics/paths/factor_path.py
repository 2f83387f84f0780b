"""Do the factors that a judge reads move evenly, and in one direction, along a path?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.bounds import NotNegative
from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.readings import FactorMetric
from metrics.paths.frames import require_path


class FactorPath(FactorMetric):
    """The path of an interpolation in the space of known factors, as read by a judge.

    * `istd_factor`: standard deviation (ddof 0) of the steps |f_{k+1} - f_k|_2, where each factor
      is divided by its standard deviation over real images; immune to texture.
    * `factor_mono`: share of pairs of frames (k < l) whose factor is ordered as at the two ends,
      over the factors that change by more than `threshold` of the judge's errors; chance is 1/2.
    * `factor_leak`: mean over inner frames and over the other factors of the distance to the
      nearer of the two ends, in standard deviations over faces: what did not change should not
      move on the way either.

    Source: ISTD after Guo et al., "Smooth Diffusion", section 4.1, with factors for pixels; the
    order of pairs is Kendall's.

    Args:
        extractor: judge that reads factors.
        threshold: factors whose ends differ by at most this many of the judge's errors count as
            unchanged.

    Raises:
        NotMeasurable: fewer than three frames.

    Example:
        >>> list(FactorPath().figures)
        ['istd_factor_zoo1', 'factor_mono_zoo1', 'factor_leak_zoo1']
    """

    source = "Smooth Diffusion, section 4.1, with factors for pixels"

    def __init__(self, *, extractor: JudgeName = "zoo1", threshold: NotNegative = 2.0) -> None:
        super().__init__(extractor=extractor)
        self.threshold = threshold

    @property
    def figures(self) -> dict[str, Figure]:
        """Evenness, order, and what moves without need."""
        even = f"standard deviation of the steps in factors, read by {self.extractor}"
        order = f"share of frame pairs ordered as the ends, read by {self.extractor}"
        leak = f"excursion of factors that are equal at the ends, read by {self.extractor}"
        return {
            f"istd_factor_{self.extractor}": Figure(even, low=0.0, higher_is_better=False),
            f"factor_mono_{self.extractor}": Figure(order, "", 0.0, 1.0, True),
            f"factor_leak_{self.extractor}": Figure(leak, "sd", 0.0, None, False),
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge and measure its error."""
        super().prepare(surroundings)
        self.sharp = self.sharpness()

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each path ``[b]``; no order where no factor changes."""
        require_path(samples.outputs.shape[1], "FactorPath")
        read = self.reader.factors(samples.outputs).double()
        steps = (read.diff(dim=1) / self.sharp.std).square().sum(2).sqrt()
        changed = (read[:, -1] - read[:, 0]).abs() > self.threshold * self.sharp.rmse
        leak = excursion(read / self.sharp.std, ~changed)
        values = (steps.std(1, correction=0), ordered(read, changed), leak)
        return dict(zip(self.figures, values, strict=True))


def ordered(factors: Float[Tensor, "b t f"], changed: Bool[Tensor, "b f"]) -> Float[Tensor, " b"]:
    """Return the share of frame pairs ordered as the ends, over the changed factors; else NaN.

    Example:
        >>> path = torch.tensor([[[0.0], [0.5], [1.0]]])
        >>> ordered(path, torch.tensor([[True]]))
        tensor([1.])
    """
    first, second = torch.triu_indices(factors.shape[1], factors.shape[1], 1)
    direction = (factors[:, -1] - factors[:, 0]).sign()
    rises = (factors[:, second] - factors[:, first]) * direction[:, None] > 0
    share = rises.to(factors.dtype).mean(1)
    return share.where(changed, torch.nan).nanmean(1)


def excursion(factors: Float[Tensor, "b t f"], still: Bool[Tensor, "b f"]) -> Float[Tensor, " b"]:
    """Return the mean distance of inner frames to the nearer end, over factors that stay; else NaN.

    Example:
        >>> path = torch.tensor([[[0.0], [0.5], [0.0]]])
        >>> excursion(path, torch.tensor([[True]]))
        tensor([0.5000])
    """
    inner, ends = factors[:, 1:-1, None], factors[:, None, [0, -1]]
    away = (inner - ends).abs().amin(2).mean(1)
    return away.where(still, torch.nan).nanmean(1)
