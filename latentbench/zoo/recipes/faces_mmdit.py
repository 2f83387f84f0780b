"""``faces_mmdit``: a text-conditional flow-matching transformer on the latents of ``faces_ldm``.

StableDiffusion3Pipeline's layout without an autoencoder of its own and without T5. "Scaling
Rectified Flow Transformers for High-Resolution Image Synthesis": joint attention over image and
text tokens, logit-normal times. Both text towers begin as that of ``faces_ldm`` and are trained on.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from latentbench import weights
from latentbench.data import faces
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import caption_accuracy, set_distance
from latentbench.zoo.recipes import face_latents, faces_ldm

NAME = "faces_mmdit"
VERSION = 1
PLAN = training.Plan(
    name=NAME, steps=4000, batch=32, lr=1e-3, flat=0.5, seed=51, fresh=face_latents.FIRST
)
EMPTY_SHARE = 0.1


def network() -> SD3Transformer2DModel:
    """Four joint blocks of width 128, each beginning as the identity."""
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=4,
        attention_head_dim=64, num_attention_heads=2, joint_attention_dim=2 * faces_ldm.WIDTH,
        caption_projection_dim=128, pooled_projection_dim=2 * faces_ldm.WIDTH,
        pos_embed_max_size=8,
    )  # fmt: skip
    zero = [transformer.norm_out.linear, transformer.proj_out]
    for block in transformer.transformer_blocks:
        zero += [block.norm1.linear, block.norm1_context.linear]
    for layer in zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Straight paths; a shift of 1.5 spends more steps on noisy levels than a uniform grid."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.5)


def tokenizer() -> CLIPTokenizer:
    """The tokenizer of ``faces_ldm``."""
    return CLIPTokenizer.from_pretrained(weights.folder(faces_ldm.NAME), subfolder="tokenizer")


def text_tower() -> CLIPTextModelWithProjection:
    """The text tower of ``faces_ldm`` with a projection that is still to be trained."""
    return CLIPTextModelWithProjection.from_pretrained(
        weights.folder(faces_ldm.NAME), subfolder="text_encoder", use_safetensors=True
    )


class TextAndTransformer(nn.Module):
    """The three networks that are trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.text_2 = text_tower(), text_tower()
        self.transformer = network()

    def forward(
        self, x: Float[Tensor, "b 4 h w"], t: Float[Tensor, " b"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b 4 h w"]:
        """The velocity under embedded captions, as the pipeline embeds them."""
        found = [tower(ids, output_hidden_states=True) for tower in (self.text, self.text_2)]
        return self.transformer(
            x,
            timestep=1000 * t,
            encoder_hidden_states=torch.cat([out.hidden_states[-2] for out in found], -1),
            pooled_projections=torch.cat([out.text_embeds for out in found], -1),
        ).sample


def _loss(
    model: TextAndTransformer, plan: training.Plan, data: face_latents.FaceLatents
) -> training.Loss:
    device, tokens = data.latents.device, tokenizer()
    ids = faces_ldm.token_ids(tokens, faces.caption(data.factors.cpu())).to(device)
    empty = faces_ldm.token_ids(tokens, [""]).to(device)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        rows = torch.randint(len(ids), (plan.batch,), generator=generator).to(device)
        uniform = training.stratified_uniforms(plan.batch, generator).clamp(1e-4, 1 - 1e-4)
        t = torch.special.ndtri(uniform).sigmoid().to(device)
        clean = data.latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(device)
        dropped = (torch.rand(plan.batch, 1, generator=generator) < EMPTY_SHARE).to(device)
        level = t.reshape(-1, 1, 1, 1)
        with training.autocast(device), sdpa_kernel(SDPBackend.MATH):  # faster backward on a CPU
            velocity = model(
                (1 - level) * clean + level * noise, t, torch.where(dropped, empty, ids[rows])
            )
        error = velocity.float() - (noise - clean)
        return (data.weights[rows] * error.square()).mean()

    return loss


def save(folder: Path, model: TextAndTransformer) -> None:
    """Write float16 weights, tokenizers, the schedule and the pipeline's index."""
    towers = {"text_encoder": model.text, "text_encoder_2": model.text_2}
    training.save_half(folder, transformer=model.transformer, **towers)
    for name in towers:
        faces_ldm.load_as_float32(folder / name / "config.json")
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer().save_pretrained(folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    face_latents.write_index(
        folder, "StableDiffusion3Pipeline", scheduler="FlowMatchEulerDiscreteScheduler",
        transformer="SD3Transformer2DModel", text_encoder="CLIPTextModelWithProjection",
        text_encoder_2="CLIPTextModelWithProjection", text_encoder_3=None,
        tokenizer="CLIPTokenizer", tokenizer_2="CLIPTokenizer", tokenizer_3=None,
    )  # fmt: skip


make = face_latents.recipe("transformer_and_text", TextAndTransformer, _loss, PLAN, save)


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Set distances and obedience to captions at guidance 1 (none), 3 and 5, 50 steps."""
    factors = faces.sample_factors("test", torch.arange(200_000, 200_000 + n))
    captions = faces.caption(factors)
    model = TransformerFlow(path=str(folder), vae=faces_ldm.NAME, device=str(device))
    figures: dict = {"sampler": "Euler, 50 steps, bfloat16 autocast", "n": n}
    for guidance in (1.0, 3.0, 5.0):
        images = face_latents.sample(model, captions, guidance=guidance)
        figures[f"guidance_{guidance:g}"] = {
            "sets": [set_distance(judge, images, face_latents.SIZE) for judge in judges],
            "caption_accuracy": {j.name: caption_accuracy(j, images, captions) for j in judges},
        }
    return figures
