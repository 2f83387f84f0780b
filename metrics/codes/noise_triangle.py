"""Where is inverted noise between the true noise and the sample?"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples


class NoiseTriangle(SampleMetric):
    """Sides and angles of the triangle of true noise z, clean latent x_0 and inverted noise z^.

    Sides are given per dimension, as root mean squares: |z - z^| is 0 where inversion is exact,
    sqrt(2) for noise that has nothing to do with z; |z - x_0| and |z^ - x_0| are alike where z^ is
    as far from the sample as z. Angles are those of each sample, in degrees.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", triangles of noise, sample and latent. Deviation: angles
    are those of each sample, averaged, where the published code averages cosines.

    Example:
        >>> list(NoiseTriangle().figures)[:2]
        ['noise_distance', 'noise_angle_noise']
    """

    needs = frozenset({"noise", "codes", "other_codes"})
    source = "There and Back Again, triangles of noise, sample and latent"

    @property
    def figures(self) -> dict[str, Figure]:
        """The side between the noises, the angle at each corner, and the other sides."""
        angles = {
            f"noise_angle_{corner}": Figure(f"angle at the {words}", "degrees", 0.0, 180.0)
            for corner, words in (
                ("noise", "true noise"), ("sample", "sample"), ("latent", "inverted noise"),
            )
        }  # fmt: skip
        distance = Figure("root mean square of inverted minus true noise", "", 0.0, None, False)
        sides = {
            f"{corner}_sample_distance": Figure(f"root mean square of {words} minus clean latent",
                                                "", 0.0)
            for corner, words in (("noise", "true noise"), ("latent", "inverted noise"))
        }  # fmt: skip
        return {"noise_distance": distance, **angles, **sides}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each image ``[b]``."""
        assert samples.noise is not None
        assert samples.codes is not None and samples.other_codes is not None
        z, x0 = samples.codes.cpu().double(), samples.other_codes.cpu().double()
        found = samples.noise.cpu().double().flatten(1)
        pairs = (found, z), (z, x0), (found, x0)
        distance, *sides = ((a - b).square().mean(1).sqrt() for a, b in pairs)
        corners = angle(z, x0, found), angle(x0, z, found), angle(found, z, x0)
        return dict(zip(self.figures, (distance, *corners, *sides), strict=True))


def angle(
    at: Float[Tensor, "b d"], one: Float[Tensor, "b d"], other: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """Return the angle at a corner between two others, in degrees.

    Example:
        >>> o, x, y = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> float(angle(o, x, y))
        90.0
    """
    cosine = cosine_similarity(one - at, other - at, 1).clamp(-1, 1)
    return torch.rad2deg(cosine.acos())
