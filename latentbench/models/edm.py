"""Denoisers in the form of EDM: noise without a fading signal, and preconditioning."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Dtype, Guidance, Name, Steps
from latentbench.model import Condition, Taps
from latentbench.models.checkpoint import CheckpointDiffusion
from latentbench.models.stable_diffusion_xl import StableDiffusionXL
from latentbench.parameterization import Grid


class EDMForm(CheckpointDiffusion):
    """What turns a checkpoint with an EDM scheduler into a model of the one loop.

    Source: "Elucidating the Design Space of Diffusion-Based Generative Models", section 5 and
    table 1. There x = x_0 + sigma eps, up to sigma = 80; here everything is divided by
    sqrt(1 + sigma^2), so alpha = 1 / sqrt(1 + sigma^2), x_T has unit variance as in every other
    model, and the loop's step is still EDM's Euler step: DDIM's step does not depend on scale.
    The denoiser D = c_skip x + c_out F(c_in x, log(sigma) / 4) is handed on as
    eps = (x - D) / sigma = sigma x / (sigma^2 + s^2) - s F / sqrt(sigma^2 + s^2), s = sigma_data.
    """

    schedule = "diffusers.EDMEulerScheduler"

    @classmethod
    def levels(cls, scheduler: Any, steps: int) -> Grid:
        """Return the checkpoint's levels, divided as above; the last is clean."""
        scheduler.set_timesteps(steps)
        sigma = scheduler.sigmas.double()
        norm = (1 + sigma**2).sqrt()
        return Grid(sigma[:-1], 1 / norm, sigma / norm)

    def forward(
        self,
        x: Float[Tensor, "r ..."],
        timesteps: Tensor,
        condition: Condition,
        taps: Taps | None = None,
    ) -> Float[Tensor, "r ..."]:
        """Return eps; see the base class. A timestep is sigma, 0 at the clean end."""
        config = self.scheduler.config
        told = timesteps.to(x).clamp(min=config.sigma_min).log() / 4
        sigma = timesteps.to(x).reshape(-1, *[1] * (x.dim() - 1))
        spread = config.sigma_data
        norm = (sigma**2 + spread**2).sqrt()
        x = x * (1 + sigma**2).sqrt() / norm
        out = super().forward(x, told, condition, taps)
        sign = -1 if config.prediction_type == "v_prediction" else 1
        return sigma * x / norm - sign * spread * out / norm


class EDMStableDiffusionXL(EDMForm, StableDiffusionXL):
    """Stable Diffusion XL's networks, trained in EDM's form, such as Playground v2.5.

    Source: "Playground v2.5: Three Insights towards Enhancing Aesthetic Quality in Text-to-Image
    Generation", section 2.1. Its pipeline takes second-order steps; the loop takes Euler's.

    Args: see `StableDiffusionXL`.

    Example:
        ``EDMStableDiffusionXL(path="/data/playground")``
    """

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps = 50,
        guidance: Guidance = 3.0,
        dtype: Dtype = "float32",
        vae_tiling: bool = False,
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, dtype=dtype, vae_tiling=vae_tiling,
            device=device,
        )  # fmt: skip
        self.prediction_type = "epsilon"
