"""`istd` and companions: are the steps of a path equally long in pixels?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import map_batches
from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples
from metrics.pairs.pairwise import unit_range
from metrics.paths.frames import require_path

TINY = 1e-9  # a length below which a path does not move
PATHS = 4  # paths measured at once, on every machine

FIGURES = {
    "istd": Figure("standard deviation of the steps of a path, pixel L2", low=0.0),
    "istd_rms": Figure("istd per pixel and channel: resolution-free", low=0.0),
    "istd_cv": Figure("standard deviation / mean of the steps: scale-free", low=0.0),
    "step_mean": Figure("mean step of a path, pixel L2", low=0.0),
    "step_max_ratio": Figure("largest step / mean step", low=1.0),
    "straightness": Figure("length of a path / distance of its ends", low=1.0),
    "end_dist": Figure("distance of a path's ends, pixel L2", low=0.0),
    "mid_variance": Figure("pixel variance of the middle frame / that of the ends", low=0.0),
}


class ISTD(SampleMetric):
    """Interpolation standard deviation: of the steps inside one path, then the mean over paths.

    D_k = |x_{k+1} - x_k|_2 over all pixels and channels; istd = std_k D_k (ddof 0). Images are in
    [0, 1], clamped, before any rounding to 8 bits; the paper leaves range, ddof and the path's
    curve open, see docs/metrics.md. `istd` grows with the number of pixels, `istd_rms` = istd /
    sqrt(3 h w) and `istd_cv` do not. Blur lowers istd: read it with `step_mean`, `end_dist` and
    `mid_variance`, which is below 1 where the middle is washed out, as by a cross-fade. A path
    that does not move has istd 0 and no ratio.

    Source: Guo et al., "Smooth Diffusion", section 4.1.

    Raises:
        NotMeasurable: fewer than three frames.

    Example:
        >>> fade = torch.linspace(0, 1, 5)[None, :, None, None, None].expand(1, 5, 3, 8, 8)
        >>> values = ISTD().values(Samples(("a",), fade, ("path",)))
        >>> round(float(values["istd"]), 4), round(float(values["straightness"]), 4)
        (0.0, 1.0)
    """

    source = "Smooth Diffusion, section 4.1"

    @property
    def figures(self) -> dict[str, Figure]:
        """Istd, its scale-free forms, and what shows a collapse."""
        lower = {"istd", "istd_rms", "istd_cv", "step_max_ratio", "straightness"}
        return {
            name: Figure(f.description, f.unit, f.low, f.high, False if name in lower else None)
            for name, f in FIGURES.items()
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each path ``[b]``."""
        frames = samples.outputs
        steps, ends = path_lengths(frames, type(self).__name__)
        spread, mean = steps.std(1, correction=0), steps.mean(1)
        moves = mean > TINY
        pixels = frames[0, 0].numel()
        values = (
            spread,
            spread / pixels**0.5,
            (spread / mean).where(moves, torch.nan),
            mean,
            (steps.amax(1) / mean).where(moves, torch.nan),
            (steps.sum(1) / ends).where(ends > TINY, torch.nan),
            ends,
            contrast_of_middle(frames),
        )
        return dict(zip(FIGURES, values, strict=True))


def path_lengths(
    frames: Float[Tensor, "b t 3 h w"], name: str
) -> tuple[Float[Tensor, "b k"], Float[Tensor, " b"]]:
    """Return the pixel length of each step and the distance of the ends, images in [0, 1].

    Raises:
        NotMeasurable: fewer than three frames; the message begins with `name`.
    """
    require_path(frames.shape[1], name)
    lengths = map_batches(_lengths, frames, PATHS)
    return lengths[:, :-1], lengths[:, -1]


def _lengths(frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t"]:
    x = unit_range(frames).flatten(2)
    gaps = torch.cat([x[:, 1:] - x[:, :-1], x[:, -1:] - x[:, :1]], 1)
    return gaps.square().sum(2).sqrt()


def contrast_of_middle(frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, " b"]:
    """Return the pixel variance of the middle frame over the mean of the ends'."""
    middle = _variance(middle_frames(frames)).mean(1)
    ends = _variance(frames[:, [0, -1]]).mean(1)
    return (middle / ends).where(ends > TINY, torch.nan)


def middle_frames(frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b k 3 h w"]:
    """Return the frame in the middle, or the two of an even number of frames."""
    count = frames.shape[1]
    return frames[:, (count - 1) // 2 : count // 2 + 1]


def _variance(frames: Float[Tensor, "b t 3 h w"]) -> Float[Tensor, "b t"]:
    """Return the variance over pixels, mean over channels."""
    return unit_range(frames).flatten(3).var(3, correction=0).mean(2)
