"""`monotonicity_<judge>`: does the target factor follow the strength?"""

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from latentbench.metric import Figure
from latentbench.types import Samples
from metrics.networks.readings import FactorMetric

FEWEST = 3  # points of a curve


class Monotonicity(FactorMetric):
    """Spearman correlation of strength and target factor, per image, in the asked direction.

    The curve is the reconstruction (strength 0), where there is one, and every output but those at
    the chosen strengths, which lie on it once more. A factor that does not move scores 0. Of
    several targets the mean gain counts.

    Source: Spearman's rank correlation, ties given their mean rank.

    Args:
        extractor: judge that reads factors.

    Example:
        >>> list(Monotonicity().figures)
        ['monotonicity_zoo1']
    """

    version = 2
    needs = frozenset({"factors", "wanted", "strengths"})
    source = "Spearman's rank correlation of strength and target factor"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"rank correlation of strength and target factor, read by {self.extractor}"
        return {
            f"monotonicity_{self.extractor}": Figure(
                what, low=-1.0, high=1.0, higher_is_better=True
            )
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return one correlation per image ``[b]``, NaN below three points."""
        assert samples.strengths is not None
        gain, strengths = self.read_edit(samples).gain(), samples.strengths.to(torch.float64)
        curve = [k for k in range(gain.shape[1]) if k not in (samples.main, samples.effect)]
        gain, strengths = gain[:, curve], strengths[:, curve]
        if samples.reconstructions is not None:
            start = torch.zeros(len(samples), 1)
            gain, strengths = torch.cat([start, gain], 1), torch.cat([start, strengths], 1)
        return {f"monotonicity_{self.extractor}": spearman(strengths, gain)}


def spearman(a: Float[Tensor, "b k"], b: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """Return the rank correlation of each row; 0 where one is constant, NaN below three points.

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 9.0]]))
        tensor([1.], dtype=torch.float64)
    """
    if a.shape[1] < FEWEST:
        return torch.full((len(a),), torch.nan, dtype=torch.float64)
    ranks = [rankdata(x.double().numpy(), axis=1) for x in (a, b)]
    x, y = (r - r.mean(1, keepdims=True) for r in ranks)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    return torch.from_numpy((x * y).sum(1) / np.where(scale > 0, scale, 1.0))
