"""``faces_dit``: a class-conditional diffusion transformer on the latents of ``faces_ldm``.

DiTPipeline's layout without an autoencoder of its own. "Scalable Diffusion Models with
Transformers": adaLN-Zero blocks, patches of 2, learned variance, linear betas. Deviation: it
predicts v instead of eps, as ``faces_ddpm`` shows why. A class is a combination of the caption
words of four factors: glasses, age, hat, beard.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentbench.data import faces
from latentbench.models.dit import DiT
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import caption_accuracy, set_distance
from latentbench.zoo.recipes import face_latents

NAME = "faces_dit"
VERSION = 1
PLAN = training.Plan(
    name=NAME, steps=5000, batch=32, lr=1e-3, flat=0.5, seed=41, fresh=face_latents.FIRST
)
FACTORS = ("glasses", "age", "hat", "beard")
CLASSES = tuple(
    " ".join(words)
    for words in itertools.product(*(faces.FACTORS[faces.factor_index(n)].words for n in FACTORS))
)
EMPTY_SHARE = 0.1


def network() -> DiTTransformer2DModel:
    """Six blocks of width 128, initialised as DiT is: every block starts as the identity."""
    transformer = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=32, in_channels=4, out_channels=8, num_layers=6,
        sample_size=16, patch_size=2, num_embeds_ada_norm=len(CLASSES),
    )  # fmt: skip
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.norm1.linear.weight)
        nn.init.zeros_(block.norm1.linear.bias)
        nn.init.normal_(block.norm1.emb.class_embedder.embedding_table.weight, std=0.02)
    for layer in (transformer.proj_out_1, transformer.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return transformer


def trainee() -> DiTTransformer2DModel:
    """The network without the embedders' own dropout, by which each block drops other labels."""
    transformer = training.plain_attention(network())
    for block in transformer.transformer_blocks:
        block.norm1.emb.class_embedder.dropout_prob = 0.0
    return transformer


def scheduler() -> DDIMScheduler:
    """DiT's linear betas, with v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", clip_sample=False,
        prediction_type="v_prediction",
    )  # fmt: skip


def class_labels(factors: Float[Tensor, "n f"]) -> Int[Tensor, " n"]:
    """Class of each face: the slices of its four factors, the last factor fastest."""
    labels = torch.zeros(len(factors), dtype=torch.long, device=factors.device)
    for name in FACTORS:
        column = faces.factor_index(name)
        slices = len(faces.FACTORS[column].words)
        labels = labels * slices + (factors[:, column] * slices).long().clamp(max=slices - 1)
    return labels


def variance_loss(
    logits: Float[Tensor, "b c h w"],
    error: Float[Tensor, "b c h w"],
    t: Int[Tensor, " b"],
    alphas_cumprod: Float[Tensor, " T"],
) -> Float[Tensor, "b c h w"]:
    """KL of p(x_t-1 | x_t) from q(x_t-1 | x_t, x_0), for steps t of 1 and more; 0 at t = 0.

    "Improved Denoising Diffusion Probabilistic Models", equations 14 to 16: the log variance is
    between log beta~ and log beta.

    Args:
        logits: the network's second half; -1 is beta~, 1 is beta.
        error: x_0 minus its prediction, without gradient.
        t: timesteps.
        alphas_cumprod: the schedule.
    """
    shape = (-1, 1, 1, 1)
    a = alphas_cumprod[t].reshape(shape)
    before = alphas_cumprod[(t - 1).clamp(min=0)].reshape(shape)
    beta = 1 - a / before
    low = (beta * (1 - before) / (1 - a)).clamp(min=1e-20).log()
    log_variance = low + (logits + 1) / 2 * (beta.clamp(min=1e-20).log() - low)
    shift = beta * before.sqrt() / (1 - a) * error
    kl = log_variance - low - 1 + (low - log_variance).exp()
    kl = 0.5 * (kl + shift.square() * (-log_variance).exp())
    return torch.where((t > 0).reshape(shape), kl, 0.0)


def _loss(
    transformer: DiTTransformer2DModel, plan: training.Plan, data: face_latents.FaceLatents
) -> training.Loss:
    noising, device = scheduler(), data.latents.device
    labels = class_labels(data.factors)
    levels = noising.alphas_cumprod.to(device)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        rows = torch.randint(len(labels), (plan.batch,), generator=generator).to(device)
        t = (training.stratified_uniforms(plan.batch, generator) * 1000).long().to(device)
        clean = data.latents[rows]
        noise = torch.randn(clean.shape, generator=generator).to(device)
        dropped = (torch.rand(plan.batch, generator=generator) < EMPTY_SHARE).to(device)
        noisy = noising.add_noise(clean, noise, t)
        told = torch.where(dropped, len(CLASSES), labels[rows])
        with training.autocast(device):
            out = transformer(noisy, timestep=t, class_labels=told).sample
        velocity, logits = out.float().chunk(2, dim=1)
        error = velocity - noising.get_velocity(clean, noise, t)
        missed = ((1 - levels[t]).sqrt().reshape(-1, 1, 1, 1) * error).detach()
        kl = variance_loss(logits, missed, t, levels)
        return (data.weights[rows] * error.square()).mean() + kl.mean()

    return loss


def save(folder: Path, transformer: DiTTransformer2DModel) -> None:
    """Write float16 weights, the schedule, and the index with the names of the classes."""
    training.save_half(folder, transformer=transformer)
    scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DiTPipeline",
        "id2label": {str(k): name for k, name in enumerate(CLASSES)},
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model_index.json").write_text(text, encoding="utf-8")


make = face_latents.recipe("transformer", trainee, _loss, PLAN, save)


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Set distances and obedience to the class, at guidance 1 (none), 2 and 4, 50 DDIM steps."""
    factors = faces.sample_factors("test", torch.arange(200_000, 200_000 + n))
    captions, real = faces.caption(factors), faces.render(factors)
    model = DiT(path=str(folder), vae="faces_ldm", device=str(device))
    figures = {
        "sampler": "DDIM, 50 steps, eta 0, bfloat16 autocast",
        "real": {"class_accuracy": _obedience(judges, real, captions), "n": n},
    }
    for guidance in (1.0, 2.0, 4.0):
        images = face_latents.sample(model, captions, guidance=guidance)
        figures[f"guidance_{guidance:g}"] = {
            "sets": [set_distance(judge, images, face_latents.SIZE) for judge in judges],
            "class_accuracy": _obedience(judges, images, captions),
        }
    return figures


def _obedience(
    judges: Sequence[Judge], images: Float[Tensor, "n 3 64 64"], captions: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Share of images in the slice of the class's word, per factor that makes the class."""
    read = {judge.name: caption_accuracy(judge, images, captions) for judge in judges}
    return {name: {factor: found[factor] for factor in FACTORS} for name, found in read.items()}
