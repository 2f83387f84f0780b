"""Where does the sampler's way turn from the true noise to the inverted one?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.intervals import Kind
from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples

SHARES = (25, 50, 75, 100)  # percent of the sampler's way, from the noise on


class NoisePath(SampleMetric):
    """Which of true noise z and inverted noise z^ the sampler's x_t is nearer to, on its way.

    The path map is D(t, lambda) = |x_t - ((1 - lambda) z + lambda z^)|, the distance of the
    sampler's latents from the segment between both noises. Its smallest value at a level lies at

        lambda*(t) = <x_t - z, z^ - z> / |z^ - z|^2, cut off at 0 and 1,

    0 at the true noise and 1 at the inverted one; above 1/2, x_t is nearer to the inverted one.
    `path_turn` is the share of the way after which it stays there, with straight lines between
    levels; 1 where it never does. An image whose noise is found exactly has no values.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", distances of intermediate steps from interpolations of noise
    and latent. Deviation: lambda is a real number, not one of 25.

    Example:
        >>> list(NoisePath().figures)[:2]
        ['path_lambda_25', 'path_lambda_50']
    """

    needs = frozenset({"trajectory", "noise", "codes"})
    source = "There and Back Again, distances of steps from interpolations"

    @property
    def figures(self) -> dict[str, Figure]:
        """The place on the segment at each quarter, the turn, and how many have turned."""
        words = "nearest place between true and inverted noise after {}% of the sampler's steps"
        places = {f"path_lambda_{s}": Figure(words.format(s), "", 0.0, 1.0) for s in SHARES}
        return {
            **places,
            "path_turn": Figure("share of the steps before x_t is nearer to inverted noise",
                                "", 0.0, 1.0),
            "path_turned": Figure("share of clean latents nearer to inverted noise",
                                  "", 0.0, 1.0, None, Kind.RATE),
        }  # fmt: skip

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each image ``[b]``."""
        assert samples.trajectory is not None
        assert samples.noise is not None and samples.codes is not None
        z, found = samples.codes.cpu().double(), samples.noise.cpu().double().flatten(1)
        place = nearest(samples.trajectory.cpu().double().flatten(2), z, found)
        last = place.shape[1] - 1
        at = [place[:, round(share * last / 100)].clamp(0, 1) for share in SHARES]
        turned = torch.where(place[:, -1].isnan(), torch.nan, (place[:, -1] > 0.5).double())
        return dict(zip(self.figures, (*at, turn(place), turned), strict=True))


def nearest(
    x: Float[Tensor, "b l d"], z: Float[Tensor, "b d"], found: Float[Tensor, "b d"]
) -> Float[Tensor, "b l"]:
    """Return the place of each x on the line through z (0) and the found noise (1).

    NaN where both noises are one.

    Example:
        >>> z, found = torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
        >>> nearest(torch.tensor([[[0.5, 9.0], [2.0, 1.0]]]), z, found).tolist()
        [[0.25, 1.0]]
    """
    way = found - z
    return ((x - z[:, None]) * way[:, None]).sum(2) / way.square().sum(1, keepdim=True)


def turn(place: Float[Tensor, "b l"]) -> Float[Tensor, " b"]:
    """Return the share of the way after which a place stays above 1/2; 1 where it does not.

    Example:
        >>> turn(torch.tensor([[0.0, 0.25, 0.75], [0.0, 0.9, 0.4], [0.6, 0.7, 0.8]])).tolist()
        [0.75, 1.0, 0.0]
    """
    steps, rows = place.shape[1] - 1, torch.arange(len(place))
    below = place <= 0.5
    last = steps - below.flip(1).int().argmax(1)  # the last level that is not nearer to the latent
    after = (last + 1).clamp(max=steps)
    low, high = place[rows, last], place[rows, after]
    crossed = (last + (0.5 - low) / (high - low)) / steps
    found = torch.where(last == steps, torch.ones_like(crossed), crossed)
    found = torch.where(below.any(1), found, torch.zeros_like(found))
    return torch.where(place.isnan().any(1), torch.nan, found)
