"""LoRAs of diffusers: merged into a U-Net, and a latent diffusion model that has one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from latentbench.bounds import Dtype, Guidance, Name, Steps, TimeNodes
from latentbench.errors import MissingWeights
from latentbench.models.components import (
    is_finite,
    listed,
    missing_and_extra,
    resolve,
    unfit,
)
from latentbench.models.latent_diffusion import LatentDiffusion

LORA_FILE = "pytorch_lora_weights.safetensors"


class AdaptedDiffusion(LatentDiffusion):
    """A latent diffusion model with a LoRA merged into its U-Net, at scale 1.

    It has the layout, spaces and prompts of `LatentDiffusion`, so that every method that runs on
    the model without the LoRA runs on it as well.

    Args:
        path: name of an embedded model, a local folder, or a hub id.
        adapter: the LoRA on it, likewise.
        adapter_file: its file, as `save_lora_weights`, `save_attn_procs` or kohya's trainer writes
            it.
        steps: default number of sampling steps.
        guidance: default classifier-free guidance scale.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the network runs.

    Example:
        >>> AdaptedDiffusion(path="faces_ldm", adapter="faces_smooth").latent_shape
        (4, 16, 16)
    """

    def __init__(
        self,
        *,
        path: Name,
        adapter: Name,
        adapter_file: Name = LORA_FILE,
        steps: Steps = 50,
        guidance: Guidance = 3.0,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(
            path=path, steps=steps, guidance=guidance, time_nodes=time_nodes, dtype=dtype,
            device=device,
        )  # fmt: skip
        merge_lora(self.network, adapter, adapter_file)


def merge_lora(network: Any, adapter: str, file: str = LORA_FILE) -> None:
    """Merge a LoRA file of diffusers into a U-Net.

    Args:
        network: the U-Net.
        adapter: name of an embedded adapter, a local folder, or a hub id.
        file: which of its files is the LoRA.

    Raises:
        MissingWeights: it is not on disk and cannot be fetched, or does not fit the U-Net to the
            last tensor; says what to run.
    """
    from diffusers import StableDiffusionPipeline

    folder = resolve(adapter)
    try:
        found: Any = StableDiffusionPipeline.lora_state_dict(
            folder, weight_name=file, use_safetensors=True,
            local_files_only=Path(folder).is_dir(), return_lora_metadata=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"cannot load the LoRA {adapter!r}: {str(error).splitlines()[0]} Give a local folder "
            f"(model.adapter=/data/lora), or fetch it on a machine with network: hf download "
            f"{adapter} {file}"
        ) from error
    weights, alphas, metadata = found
    if not any(name.startswith(("unet.", "text_encoder")) for name in weights):
        weights = {f"unet.{n}": v for n, v in weights.items()}  # as `save_attn_procs` names them
    place = Path(folder) / file
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
