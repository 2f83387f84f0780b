"""Spherical interpolation of noise."""

from jaxtyping import Float
from torch import Tensor

from latentbench.sampling import linear
from methods.interpolation.lerp import LinearInterpolation


class SphericalInterpolation(LinearInterpolation):
    """Great-circle path between two noises, each flattened to one vector, in float64.

    Source: "Denoising Diffusion Implicit Models", section 5.3 and appendix D.5. Keeps the norm of
    the noise, so frames stay where the model was trained; prompts as in `lerp`.

    Args:
        space: "noise", or "style" for a path in w.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.
        negative: prompt that guidance leads away from; default: the empty condition.
        convention: timestep that the network receives while a real image is inverted; see `lerp`.

    Example:
        >>> path = SphericalInterpolation(steps=20)  # path.interpolate(a, b, steps=11)
    """

    paper = "Denoising Diffusion Implicit Models, section 5.3"

    def mix(self, a: Tensor, b: Tensor, w: Float[Tensor, "b t"]) -> Float[Tensor, "b t ..."]:
        """Return the arc between two noises."""
        return linear.slerp(a, b, w)
