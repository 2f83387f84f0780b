"""Random pipelines on disk with the architecture of real transformer checkpoints.

Each takes a checkpoint's own config, shrunk by its size fields alone.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from latentbench.conformance import toy

# transformer/config.json of facebook/DiT-XL-2-256 and of the same with 512 pixels
DIT_XL_256: dict[str, Any] = {
    "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8,
    "num_layers": 28, "attention_bias": True, "sample_size": 32, "patch_size": 2,
    "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_zero", "norm_elementwise_affine": False,
}  # fmt: skip
DIT_XL_512 = DIT_XL_256 | {"sample_size": 64}
# transformer/config.json of stabilityai/stable-diffusion-3-medium, -3.5-medium and -3.5-large
SD3_MEDIUM: dict[str, Any] = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
    "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
    "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
}  # fmt: skip
SD35_MEDIUM = SD3_MEDIUM | {
    "qk_norm": "rms_norm", "pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)),
}  # fmt: skip
SD35_LARGE = SD3_MEDIUM | {
    "qk_norm": "rms_norm", "num_layers": 38, "num_attention_heads": 38,
    "caption_projection_dim": 2432,
}  # fmt: skip
# transformer/config.json of black-forest-labs/FLUX.1-schnell and -dev, and their schedules
FLUX_SCHNELL: dict[str, Any] = {
    "patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38,
    "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096,
    "pooled_projection_dim": 768, "guidance_embeds": False, "axes_dims_rope": (16, 56, 56),
}  # fmt: skip
FLUX_DEV = FLUX_SCHNELL | {"guidance_embeds": True}
SCHNELL_SCHEDULE: dict[str, Any] = {"shift": 1.0}
DEV_SCHEDULE: dict[str, Any] = {"shift": 3.0, "use_dynamic_shifting": True}
WIDTH = 32
T5_TOKENS = 6


def save_dit(folder: Path, config: dict[str, Any], classes: dict[int, str]) -> str:
    """Write a DiT in the layout of DiTPipeline, with named classes."""
    torch.manual_seed(0)
    small = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "sample_size": 8}
    network = DiTTransformer2DModel(**(config | small))
    _wake(network)
    schedule = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    parts = {"transformer": network, "vae": autoencoder(4), "scheduler": schedule}
    index = {
        "_class_name": "DiTPipeline",
        "id2label": {str(k): name for k, name in classes.items()},
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    return _save(folder, index, parts)


def save_sd3(folder: Path, config: dict[str, Any], t5: bool = False) -> str:
    """Write a joint transformer in the layout of StableDiffusion3Pipeline."""
    torch.manual_seed(0)
    small = {
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 3, "sample_size": 8,
        "caption_projection_dim": 32, "joint_attention_dim": 3 * WIDTH, "pos_embed_max_size": 12,
        "pooled_projection_dim": 2 * WIDTH,
        "dual_attention_layers": tuple(config.get("dual_attention_layers", ())[:2]),
    }  # fmt: skip
    network = SD3Transformer2DModel(**(config | small))
    _wake(network)
    tokenizer = toy.word_tokenizer(folder)
    parts = {
        "transformer": network,
        "vae": autoencoder(16, scaling_factor=1.5305, shift_factor=0.0609),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "text_encoder": text_tower(tokenizer),
        "text_encoder_2": text_tower(tokenizer),
    }
    if t5:
        parts |= {"tokenizer_3": t5_tokenizer(), "text_encoder_3": t5_tower()}
    return _save(folder, {"_class_name": "StableDiffusion3Pipeline"}, parts)


def save_flux(folder: Path, config: dict[str, Any], schedule: dict[str, Any]) -> str:
    """Write a transformer of double and single streams in the layout of FluxPipeline."""
    torch.manual_seed(0)
    small = {
        "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
        "num_single_layers": 3, "joint_attention_dim": 3 * WIDTH, "pooled_projection_dim": WIDTH,
        "axes_dims_rope": (4, 6, 6),
    }  # fmt: skip
    network = FluxTransformer2DModel(**(config | small))
    _wake(network)
    tokenizer = toy.word_tokenizer(folder)
    parts = {
        "transformer": network,
        "vae": autoencoder(
            16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(**schedule),
        "tokenizer": tokenizer,
        "text_encoder": text_tower(tokenizer, CLIPTextModel),
        "tokenizer_2": t5_tokenizer(),
        "text_encoder_2": t5_tower(),
    }  # fmt: skip
    return _save(folder, {"_class_name": "FluxPipeline"}, parts)


def autoencoder(channels: int, **settings: Any) -> AutoencoderKL:
    """Return an autoencoder of 16 pixels to 8."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        **settings,
    )


def text_tower(tokenizer: Any, cls: Any = CLIPTextModelWithProjection) -> Any:
    """Return a CLIP text tower, by default with a projection."""
    end = tokenizer.eos_token_id
    return cls(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=64,
            projection_dim=WIDTH, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=toy.TOKENS,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=end, pad_token_id=end,
        )
    )  # fmt: skip


def t5_tokenizer() -> T5Tokenizer:
    """Return a T5 tokenizer of the toy words."""
    words = [(f"▁{word}", -1.0) for word in toy.WORDS]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), *words], extra_ids=0)


def t5_tower() -> T5EncoderModel:
    """Return a T5 encoder as wide as the joint attention's context."""
    return T5EncoderModel(
        T5Config(
            vocab_size=3 + len(toy.WORDS), d_model=3 * WIDTH, d_kv=8, d_ff=32, num_layers=1,
            num_heads=2,
        )
    )  # fmt: skip


def _wake(network: torch.nn.Module) -> None:
    """Enlarge the modulations: an untrained transformer hardly listens to its condition."""
    for name, weight in network.named_parameters():
        if "norm1" in name and "linear" in name:
            weight.data.mul_(3)


def _save(folder: Path, index: dict[str, Any], parts: dict[str, Any]) -> str:
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps(index))
    return str(folder)
