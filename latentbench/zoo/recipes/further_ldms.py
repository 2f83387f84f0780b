"""``faces_ldm_f8`` and ``faces_ldm_f4c16``: latent diffusion on two further autoencoders.

With ``faces_ldm`` (f4, 4 channels) they make the trade-off between reconstruction and generation a
sweep over models: fewer numbers per face, and more. Both have the same narrow U-Net and start from
the text tower of ``faces_ldm``; everything else is that recipe's.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPTextModel, CLIPTokenizer

from latentbench import weights
from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.recipes import faces_ldm

VERSION = 1
CHANNELS = (32, 48)  # of the U-Nets


@dataclass(frozen=True)
class Design:
    """One autoencoder and the training of it and of its denoiser.

    Attributes:
        channels: Width of the autoencoder's blocks; each but the last halves the resolution.
        latent_channels: Channels of its latent.
        autoencoder: How it is trained.
        denoiser: How the U-Net and the text tower are trained.
    """

    channels: tuple[int, ...]
    latent_channels: int
    autoencoder: training.Plan
    denoiser: training.Plan

    @property
    def side(self) -> int:
        """Latents per side of a face."""
        return faces_ldm.SIZE // 2 ** (len(self.channels) - 1)


def _autoencoder_plan(name: str, seed: int, fresh: int) -> training.Plan:
    return training.Plan(
        name=f"{name}_vae", steps=1600, batch=8, lr=2e-3, flat=0.0, decay="cosine", seed=seed,
        ema=0.998, weight_decay=0.0, fresh=fresh,
    )  # fmt: skip


def _denoiser_plan(name: str, seed: int) -> training.Plan:
    return training.Plan(
        name=name, steps=2000, batch=32, lr=1e-3, flat=0.55, seed=seed, ema=0.998,
        fresh=faces_ldm.PLAN.fresh,
    )  # fmt: skip


DESIGNS = {
    "faces_ldm_f8": Design(
        (16, 24, 40, 40), 4, _autoencoder_plan("faces_ldm_f8", 61, 11_000_000),
        _denoiser_plan("faces_ldm_f8", 62),
    ),
    "faces_ldm_f4c16": Design(
        (24, 24, 48), 16, _autoencoder_plan("faces_ldm_f4c16", 63, 12_000_000),
        _denoiser_plan("faces_ldm_f4c16", 64),
    ),
}  # fmt: skip


def make(
    name: str,
    folder: Path,
    device: torch.device,
    root: Path,
    share: float = 1.0,
    *,
    count: int = faces_ldm.LATENTS,
) -> dict[str, object]:
    """Train autoencoder and denoiser (or go on training) and write the pipeline's folder."""
    design = DESIGNS[name]
    plans = [training.shortened(p, share) for p in (design.autoencoder, design.denoiser)]
    torch.manual_seed(plans[0].seed)
    vae = faces_ldm.autoencoder(design.channels, design.latent_channels).to(device)
    vae_seconds = faces_ldm.train_autoencoder(vae, plans[0], device, root)
    data = faces_ldm.cached_latents(vae, plans[1], device, root, count)
    tokens, text = _shipped_text()
    torch.manual_seed(plans[1].seed)
    unet = faces_ldm.network(CHANNELS, design.side, design.latent_channels)
    both = faces_ldm.TextAndUNet(text, training.plain_attention(unet))
    captions = faces.caption(data["factors"])
    both, seconds = faces_ldm.train_diffusion(plans[1], both, data, captions, tokens, root)
    faces_ldm.save(folder, vae, both, tokens, 1 / float(data["latents"].std()))
    return {
        "vae": training.facts(plans[0], "generator", vae_seconds),
        "unet_and_text": training.facts(plans[1], "generator", seconds, count),
    }


def _shipped_text() -> tuple[CLIPTokenizer, CLIPTextModel]:
    weights.verify(faces_ldm.NAME)
    folder = weights.folder(faces_ldm.NAME)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder")
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), text.float()
