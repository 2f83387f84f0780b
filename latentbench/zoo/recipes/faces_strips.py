"""``faces_strips``: ``faces_ldm_f4c16`` tuned to crops of strips of faces, in the same layout.

What a method that makes wide pictures through overlapping windows needs: a model to which a window
that cuts faces in two is nothing new. Autoencoder, tokenizer and scheduler are those of
``faces_ldm_f4c16``; its U-Net and text tower are trained on, on crops of 64 pixels under captions
that name what all faces of a strip share.
"""

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from latentbench import store, weights
from latentbench.data import faces, strips
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import (
    device_of,
    distance_to_real,
    in_batches,
    reconstruction_figures,
)
from latentbench.zoo.recipes import faces_ldm
from latentbench.zoo.recipes.shipped import unet_hash

NAME = "faces_strips"
START = "faces_ldm_f4c16"
VERSION = 1
PLAN = training.Plan(
    name=NAME, steps=1500, batch=32, lr=1e-3, flat=0.4, seed=81, ema=0.998, fresh=4_000_000,
    save_every=50,
)  # fmt: skip
CROPS = 8192
STEPS = 25  # of the card's samples


@torch.no_grad()
def crops(vae: AutoencoderKL, root: Path, count: int) -> dict[str, Tensor]:
    """Latents of crops with the factors that their faces share; made once, then read."""
    path = root / NAME / f"crops_{count}.safetensors"
    if not path.is_file():
        latents = []
        for part in torch.arange(PLAN.fresh, PLAN.fresh + count).split(64):
            images = strips.render("generator", part, faces_ldm.SIZE).to(vae.device)
            with training.autocast(vae.device):
                latents.append(vae.encode(images).latent_dist.mean.float().cpu())
        shared = strips.shared_factors("generator", torch.arange(PLAN.fresh, PLAN.fresh + count))
        made = {"latents": torch.cat(latents), "shared": shared}
        store.write(path, safetensors.torch.save(made))
    return safetensors.torch.load_file(path)


def make(
    folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = CROPS
) -> dict[str, object]:
    """Train on (or go on training) and write the pipeline's folder; gives the facts for the card.

    Args:
        folder: Where the pipeline goes.
        device: Where to train.
        root: Folder of the checkpoints.
        share: Factor on the steps.
        count: Number of crops.
    """
    weights.verify(START)
    start = faces_ldm.load(weights.folder(START)).to(device)
    plan, made = training.shortened(PLAN, share), crops(start.vae, root, count)
    data = {
        "latents": made["latents"].to(device),
        "weights": torch.ones(count, 1, 1, 1, device=device),
    }
    both = faces_ldm.TextAndUNet(start.text_encoder, training.plain_attention(start.unet))
    captions = strips.caption(made["shared"])
    both, seconds = faces_ldm.train_diffusion(plan, both, data, captions, start.tokenizer, root)
    scale = 1 / float(data["latents"].std())
    faces_ldm.save(folder, start.vae, both, start.tokenizer, scale)
    told = training.facts(plan, "generator", seconds, count)
    return {"unet_and_text": told | {"start": START, "start_unet_sha256": unet_hash(START)}}


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Autoencoder on crops; set distances to true crops and obedience to captions, by guidance."""
    some, index = torch.arange(min(n, 256)), torch.arange(200_000, 200_000 + n)
    captions = strips.caption(strips.shared_factors("test", index))
    real = strips.render("test", index, faces_ldm.SIZE)
    originals = strips.render("test", some, faces_ldm.SIZE)
    decoded = faces_ldm.reconstruct(faces_ldm.load(folder).vae.to(device), originals.to(device))
    figures = {
        "autoencoder": reconstruction_figures(originals, decoded.cpu(), ()) | {"n": len(some)},
        "sampler": f"DDIM, {STEPS} steps, eta 0, bfloat16 autocast",
        "real": {"caption_accuracy": _obedience(judges, real, captions), "n": n},
    }
    for guidance in (1.0, 2.0, 4.0):
        images = faces_ldm.sample(folder, captions, device, guidance=guidance, steps=STEPS).cpu()
        figures[f"guidance_{guidance:g}"] = {
            "sets": [distance_to_real(judge, images, _test_crops) for judge in judges],
            "caption_accuracy": _obedience(judges, images, captions),
        }
    return figures


def _test_crops(first: int, n: int) -> Float[Tensor, "n 3 64 64"]:
    index = torch.arange(500_000 + first, 500_000 + first + n)
    return strips.render("test", index, faces_ldm.SIZE)


def _obedience(
    judges: Sequence[Judge], images: Float[Tensor, "n 3 64 64"], captions: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Share of crops in which a judge reads the caption's words, wherever their faces stand."""
    columns = [faces.factor_index(name) for name in strips.GLOBALS]
    asked, found = [text.split() for text in captions], {}
    for judge in judges:
        shared = in_batches(judge.factors, images, device_of(judge))[:, columns]
        seen = [text.split() for text in strips.caption(shared)]
        right = {
            name: round(sum(a[k] == b[k] for a, b in zip(seen, asked, strict=True)) / len(asked), 4)
            for k, name in enumerate(strips.GLOBALS)
        }
        found[judge.name] = right | {"mean": round(sum(right.values()) / len(right), 4)}
    return found
