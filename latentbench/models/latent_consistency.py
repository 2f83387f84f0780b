"""Latent consistency models: a latent diffusion model distilled to a few steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Dtype, Guidance, Name, Steps
from latentbench.errors import MissingWeights
from latentbench.model import Condition
from latentbench.models.components import (
    is_finite,
    listed,
    missing_and_extra,
    resolve,
    unfit,
)
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.parameterization import Grid, scheduled_grid
from latentbench.types import Space

LORA_FILE = "pytorch_lora_weights.safetensors"


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


def merge_lora(network: Any, adapter: str) -> None:
    """Merge a LoRA file of diffusers into a U-Net.

    Args:
        network: the U-Net.
        adapter: name of an embedded adapter, a local folder, or a hub id.

    Raises:
        MissingWeights: it is not on disk and cannot be fetched, or does not fit the U-Net to the
            last tensor; says what to run.
    """
    from diffusers import StableDiffusionPipeline

    folder = resolve(adapter)
    try:
        found: Any = StableDiffusionPipeline.lora_state_dict(
            folder, weight_name=LORA_FILE, use_safetensors=True,
            local_files_only=Path(folder).is_dir(), return_lora_metadata=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"cannot load the LoRA {adapter!r}: {str(error).splitlines()[0]} Give a local folder "
            f"(model.adapter=/data/lora), or fetch it on a machine with network: hf download "
            f"{adapter} {LORA_FILE}"
        ) from error
    weights, alphas, metadata = found
    place = Path(folder) / LORA_FILE
    wild = [n for n, v in weights.items() if not v.is_floating_point() or not is_finite(v)]
    if wild:
        raise unfit("the LoRA", place, [f"integers, NaN or infinity in {listed(wild)}"])
    try:
        network.load_lora_adapter(weights, network_alphas=alphas, metadata=metadata, prefix="unet")
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise unfit("the LoRA", place, [str(error).replace("\n", " ")]) from error
    problems = _lora_misfits(network, weights, alphas or {})
    if problems:
        raise unfit("the LoRA", place, problems)
    network.fuse_lora()
    network.unload_lora()


def _lora_misfits(
    network: Any, weights: Mapping[str, Tensor], alphas: Mapping[str, float]
) -> list[str]:
    """Return what a loaded LoRA and its file do not have in common, in words."""
    from diffusers.utils import convert_unet_state_dict_to_peft
    from peft import get_peft_model_state_dict

    own = {n.removeprefix("unet."): v for n, v in weights.items() if n.startswith("unet.")}
    if not any(".lora_A." in name for name in own):
        own = convert_unet_state_dict_to_peft(own)
    adapters = list(getattr(network, "peft_config", {}))
    filled = get_peft_model_state_dict(network, adapter_name=adapters[0]) if adapters else {}
    strangers = [name for name in weights if not name.startswith("unet.")]
    layers = {name.partition(".lora_")[0] for name in own}
    problems = missing_and_extra(
        filled.keys() - own.keys(), [*(own.keys() - filled.keys()), *strangers], "the U-Net"
    )
    if alphas and len(alphas) != len(layers):
        problems.append(f"it has alphas of {len(alphas)} of its {len(layers)} layers")
    return problems
