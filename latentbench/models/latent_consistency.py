"""Latent consistency models: a latent diffusion model distilled to a few steps."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Dtype, Guidance, Name, Steps
from latentbench.model import Condition
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.lora import merge_lora
from latentbench.parameterization import Grid, scheduled_grid
from latentbench.types import Space


class LatentConsistency(LatentDiffusion):
    """A few-step student of a latent diffusion model: a whole checkpoint, or a LoRA on its teacher.

    Source: "Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step
    Inference" and "LCM-LoRA: A Universal Stable-Diffusion Acceleration Module". One call maps x_t
    to x_0; several steps noise x_0 again in between, so no image has an x_T that leads back to it.
    The class therefore lacks `Space.NOISE`: editors that invert are refused, and `consistency` is
    the method that samples it; for inversion use the teacher. The LoRA is merged into the weights.

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        adapter: the LoRA on it, likewise, as `save_lora_weights` writes it; None for a checkpoint
            that is a student already.
        steps: default number of sampling steps, 1 to 8.
        guidance: classifier-free guidance on top of what the student has learned; 1 is none.
        embedded_guidance: the scale that a student with a guidance embedding receives.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.

    Example:
        >>> LatentConsistency(path="faces_ldm", adapter="faces_lcm").grid(4).n
        4
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({Space.CONSISTENCY, Space.VAE})
    schedule = "diffusers.LCMScheduler"

    def __init__(
        self,
        *,
        path: Name,
        adapter: Name | None = None,
        steps: Steps = 4,
        guidance: Guidance = 1.0,
        embedded_guidance: Guidance = 8.5,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, guidance=guidance, dtype=dtype, device=device)
        self.embedded_guidance = embedded_guidance
        if adapter is not None:
            merge_lora(self.network, adapter)

    def settings(self) -> tuple[Any, ...]:
        """Return what changes an image besides weights and schedule."""
        return (*super().settings(), self.embedded_guidance)

    @classmethod
    def levels(cls, scheduler: Any, steps: int) -> Grid:
        """Return the levels of the LCM schedule, ending at the clean image."""
        return scheduled_grid(scheduler, steps, 1.0)

    def boundary(self, timestep: int | float) -> tuple[float, float]:
        """Return (c_skip, c_out) of a timestep."""
        skip, out = self.scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        return float(skip), float(out)

    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the prompts' embeddings, with the guidance that the student receives, if any."""
        condition = super().condition(prompts, rows)
        width = self.network.config.time_cond_proj_dim
        if width is None:
            return condition
        told = guidance_embedding(self.embedded_guidance - 1, width).to(self.device)
        return Condition({**condition.tensors, "timestep_cond": told.expand(rows, width)})


def guidance_embedding(weight: float, width: int) -> Float[Tensor, " d"]:
    """Return the sinusoidal embedding of a guidance weight (the scale minus 1), as LCM's."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * -(torch.tensor(10_000.0).log() / (half - 1)))
    angles = 1000 * weight * frequencies
    return torch.cat([angles.sin(), angles.cos()])
