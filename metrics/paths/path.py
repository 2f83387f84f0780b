"""Is a path perceptually smooth, and is its middle halfway?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader
from metrics.paths.frames import require_path
from metrics.paths.istd import middle_frames

TINY = 1e-12  # a distance below which a path does not move


class PathSmoothness(SampleMetric):
    """Consistency and smoothness of a path under a learned perceptual distance d_k of its steps.

    * `consistency`: mean_k d_k, lower is better (AID); trivial blends win it, so read it with
      `inner_projection`.
    * `smooth_gini`: 1 - Gini(d), Gini = sum_ij |d_i - d_j| / (2 m^2 mean d) over m steps: 1 for
      equal steps, 1 / m for a single jump (AID). `smooth_norm` stretches it to 0..1, so that
      paths of other numbers of frames are nearer to each other.
    * `path_ratio`: sum_k sqrt d_k / sqrt d(first, last), a detour. The judge's distance is a
      squared one, its root a metric: the ratio is 1 for a straight path and never below.
    * `step_max_ratio`: max d / mean d. `istd_lpd`: std_k d_k, the perceptual twin of ISTD.
    * `mid_balance`: |d(first, mid) - d(mid, last)| / their sum.

    The middle of an even number of frames is the mean over the two middle ones. A path that does
    not move has consistency 0 and no ratio.

    Source: He et al., "AID: Attention Interpolation of Text-to-Image Diffusion", section 4
    (consistency, smoothness; LPIPS replaced by the judge's distance), and this suite.

    Args:
        extractor: judge whose features give the distance.

    Raises:
        NotMeasurable: fewer than three frames.

    Example:
        >>> list(PathSmoothness().figures)[:2]
        ['consistency_zoo1', 'smooth_gini_zoo1']
    """

    source = "AID, section 4: consistency and smoothness, with a learned distance"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def figures(self) -> dict[str, Figure]:
        """Statistics of the learned distance."""
        d = f"learned distance of {self.extractor}"
        figures = {
            "consistency": Figure(f"mean step of a path, {d}", "", 0.0, None, False),
            "smooth_gini": Figure(f"1 - Gini index of the steps, {d}", "", 0.0, 1.0, True),
            "smooth_norm": Figure(f"the same, 0 for a single jump, {d}", "", 0.0, 1.0, True),
            "path_ratio": Figure(
                f"length / distance of the ends, root of {d}", "", 1.0, None, False
            ),
            "step_max_ratio": Figure(f"largest step / mean step, {d}", "", 1.0, None, False),
            "istd_lpd": Figure(f"standard deviation of the steps, {d}", "", 0.0, None, False),
            "mid_balance": Figure(f"asymmetry of the middle frame, {d}", "", 0.0, 1.0, False),
        }
        return {f"{name}_{self.extractor}": figure for name, figure in figures.items()}

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each path ``[b]``."""
        frames = samples.outputs
        require_path(frames.shape[1], "PathSmoothness")
        steps = self.reader.distance(frames[:, :-1], frames[:, 1:]).double()
        mean, least = steps.mean(1), 1 / steps.shape[1]
        moves, smooth = mean > TINY, 1 - gini(steps)
        ends = self.reader.distance(frames[:, 0], frames[:, -1]).double()
        values = (
            mean,
            smooth.where(moves, torch.nan),
            ((smooth - least) / (1 - least)).where(moves, torch.nan),
            (steps.sqrt().sum(1) / ends.sqrt()).where(ends > TINY, torch.nan),
            (steps.amax(1) / mean).where(moves, torch.nan),
            steps.std(1, correction=0),
            self._balance(frames),
        )
        return dict(zip(self.figures, values, strict=True))

    def _balance(self, frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, " b"]:
        mids = middle_frames(frames)
        before, after = (
            self.reader.distance(mids, end[:, None]).double().mean(1)
            for end in (frames[:, 0], frames[:, -1])
        )
        total = before + after
        return ((before - after).abs() / total).where(total > TINY, torch.nan)


def gini(values: Float[Tensor, "b m"]) -> Float[Tensor, " b"]:
    """Return the Gini index of each row of non-negative values, between 0 and 1 - 1 / m.

    Example:
        >>> gini(torch.tensor([[0.0, 0.0, 3.0]]))
        tensor([0.6667])
    """
    gaps = (values[:, :, None] - values[:, None]).abs().sum((1, 2))
    return gaps / (2 * values.shape[1] ** 2 * values.mean(1))
