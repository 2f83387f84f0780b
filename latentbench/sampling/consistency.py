"""Sampling of consistency models: x_0 in one step, fresh noise between steps."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from latentbench.sampling.loop import Intervention, Noise, Step


@runtime_checkable
class Boundary(Protocol):
    """What a consistency model adds to a denoiser."""

    def boundary(self, timestep: int | float) -> tuple[float, float]:
        """Return (c_skip, c_out) of f = c_skip x + c_out x0, with f = x at the clean end."""
        ...


class ConsistencyStep(Intervention):
    """Makes a step of the loop a step of multistep consistency sampling.

    "Latent Consistency Models", algorithm of multistep sampling: x_0 = c_skip x_t + c_out x0(x_t),
    then x_{t'} = alpha' x_0 + sigma' z. In the loop's words: fresh noise takes the place of eps.

    Args:
        model: gives c_skip and c_out.
        noise: step index -> z of that step, one row per image; the last step needs none.
    """

    def __init__(self, model: Boundary, noise: Noise) -> None:
        self.model, self.noise = model, noise

    def prediction(
        self, step: Step, x: Float[Tensor, "b ..."], x0: Tensor, eps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (f(x_t), z)."""
        skip, out = self.model.boundary(step.timestep)
        last = step.index == step.n - 1
        return skip * x + out * x0, eps if last else self.noise(step.index).to(x)
