"""Configs of published checkpoints, and what shrinks them: their size fields alone.

`FULL` holds each network's own config where it differs from diffusers' defaults, with the number
of parameters that the published weights have; `SMALL` overrides widths, depths and resolutions.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from latentbench.conformance import toy

SIDE = 8  # pixels or latents per side of a shrunk network


@dataclass(frozen=True)
class Network:
    """One network: its class, config, published parameter count, and shrunk size fields."""

    cls: Any
    full: dict[str, Any]
    parameters: int
    small: dict[str, Any] = field(default_factory=dict)

    def shrunk(self) -> Any:
        """Return the small network with random weights."""
        torch.manual_seed(0)
        network = self.cls(**self.full | self.small)
        if hasattr(network, "conv_out"):  # else errors of an untrained denoiser grow by the step
            network.conv_out.weight.data.mul_(0.2)
        if isinstance(network, AutoencoderKL):  # latents of about unit size, as of a trained one
            network.quant_conv.weight.data.mul_(24)
        for name, weight in network.named_parameters():
            if "attn2" in name:  # an untrained network hardly listens to its prompt
                weight.data.mul_(3)
        return network


DDPM_UNET = Network(
    UNet2DModel,
    {
        "sample_size": 256,
        "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
        "layers_per_block": 2,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
    },
    113_673_219,
    {"sample_size": 32, "block_out_channels": (32,) * 6, "layers_per_block": 1},
)
LDM_UNET = Network(
    UNet2DModel,
    {
        "sample_size": 64,
        "block_out_channels": (224, 448, 672, 896),
        "down_block_types": ("DownBlock2D",) + ("AttnDownBlock2D",) * 3,
        "up_block_types": ("AttnUpBlock2D",) * 3 + ("UpBlock2D",),
        "attention_head_dim": 32,
    },
    274_056_163,
    {
        "sample_size": SIDE,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
    },
)
LDM_VQ = Network(
    VQModel,
    {
        "block_out_channels": (128, 256, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "layers_per_block": 2,
        "latent_channels": 3,
        "num_vq_embeddings": 8192,
        "sample_size": 256,
    },
    55_322_782,  # published rounded: 55.3M
    {"block_out_channels": (32, 32, 32), "layers_per_block": 1, "num_vq_embeddings": 64},
)
SD15_UNET = Network(
    UNet2DConditionModel,
    {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    859_520_964,
    {
        "sample_size": SIDE,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
    },
)
SD21_UNET = Network(
    UNet2DConditionModel,
    {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    865_910_724,
    {
        "sample_size": SIDE,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": (1, 2, 4, 4),
    },
)
SDXL_UNET = Network(
    UNet2DConditionModel,
    {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    2_567_463_684,
    {
        "sample_size": SIDE,
        "block_out_channels": (32, 32, 64),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 2, 4),
        "layers_per_block": 1,
        "cross_attention_dim": 32 + 48,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 40,
    },
)
SD_VAE = Network(
    AutoencoderKL,
    {
        "sample_size": 512,
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "scaling_factor": 0.18215,
    },
    83_653_863,
    {"sample_size": 8 * SIDE, "block_out_channels": (32,) * 4, "layers_per_block": 1},
)
SDXL_VAE = Network(
    AutoencoderKL,
    SD_VAE.full | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
    83_653_863,
    SD_VAE.small,
)


def _text(width: int, layers: int, heads: int, act: str, projection: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, hidden_act=act, projection_dim=projection,
    )  # fmt: skip


TEXTS = {  # class, config, published parameter count
    "sd15": (CLIPTextModel, _text(768, 12, 12, "quick_gelu", 768), 123_060_480),
    "sd21": (CLIPTextModel, _text(1024, 23, 16, "gelu", 512), 340_387_840),
    "sdxl_2": (CLIPTextModelWithProjection, _text(1280, 32, 20, "gelu", 1280), 694_659_840),
}
PNDM = PNDMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
    set_alpha_to_one=False, steps_offset=1,
)  # fmt: skip
SDXL_SCHEDULE = EulerDiscreteScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
    timestep_spacing="leading", interpolation_type="linear",
)  # fmt: skip


def _small_text(folder: Path, name: str, width: int, projection: int = 40) -> Any:
    """Return a text encoder like `name`, shrunk, with the toy tokenizer's vocabulary."""
    torch.manual_seed(len(name))
    tokenizer = toy.word_tokenizer(folder)
    cls, full, _ = TEXTS[name]
    config = CLIPTextConfig(**full.to_dict() | {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3,
        "num_attention_heads": 4, "projection_dim": projection, "vocab_size": len(tokenizer),
        "max_position_embeddings": toy.TOKENS, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id,
    })  # fmt: skip
    return cls(config)


def save_ddpm(folder: Path) -> str:
    """Write google/ddpm-celebahq-256's form: everything in the root."""
    DDPM_UNET.shrunk().save_pretrained(folder)
    DDPMScheduler(clip_sample=True).save_pretrained(folder)
    return str(folder)


def save_ldm(folder: Path) -> str:
    """Write CompVis/ldm-celebahq-256's form."""
    schedule = DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False
    )
    parts = {"unet": LDM_UNET.shrunk(), "vqvae": LDM_VQ.shrunk(), "scheduler": schedule}
    return toy._save(folder, **parts)


def save_sd(folder: Path, name: str) -> str:
    """Write the form of Stable Diffusion 1.5 or 2.1."""
    unet = {"sd15": SD15_UNET, "sd21": SD21_UNET}[name].shrunk()
    kind = {"sd15": "epsilon", "sd21": "v_prediction"}[name]
    schedule = {"sd15": PNDM, "sd21": DDIMScheduler.from_config(PNDM.config, prediction_type=kind)}
    return toy._save(
        folder, unet=unet, vae=SD_VAE.shrunk(), text_encoder=_small_text(folder, name, 32),
        tokenizer=toy.word_tokenizer(folder), scheduler=schedule[name],
    )  # fmt: skip


def save_playground(folder: Path) -> str:
    """Write the form of Playground v2.5: Stable Diffusion XL's with another scheduler and VAE."""
    statistics = {
        "latents_mean": (-1.6574, 1.886, -1.383, 2.5155),
        "latents_std": (8.4927, 5.9022, 6.5498, 5.2299),
        "scaling_factor": 0.5,
    }
    torch.manual_seed(0)
    vae = AutoencoderKL(**SDXL_VAE.full | SDXL_VAE.small | statistics)
    return save_sdxl(folder, EDMDPMSolverMultistepScheduler(), vae)


def save_sdxl(folder: Path, schedule: Any = SDXL_SCHEDULE, vae: Any = None) -> str:
    """Write the form of Stable Diffusion XL's base."""
    tokenizer = toy.word_tokenizer(folder)
    toy._save(
        folder, unet=SDXL_UNET.shrunk(), vae=vae or SDXL_VAE.shrunk(), scheduler=schedule,
        text_encoder=_small_text(folder, "sd15", 32), tokenizer=tokenizer,
        text_encoder_2=_small_text(folder, "sdxl_2", 48), tokenizer_2=tokenizer,
    )  # fmt: skip
    (folder / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": true}'
    )
    return str(folder)
