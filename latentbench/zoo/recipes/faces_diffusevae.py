"""``faces_diffusevae``: a denoiser that refines what ``faces_vae`` decodes, on 32-pixel faces.

First form of DiffuseVAE: the decoding is stacked onto x_t. The U-Net starts from ``faces_ddpm``,
its new input channels at zero. Codes are draws of the posterior, not its means, as they are drawn
at generation.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from jaxtyping import Float
from torch import Tensor

from latentbench.models.vae import DiffuseVAE
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.recipes import faces_ddpm, faces_vae
from latentbench.zoo.recipes.cached_faces import COUNT, FIRST, CachedFaces
from latentbench.zoo.recipes.semantic_figures import semantic_figures
from latentbench.zoo.recipes.shipped import shipped_autoencoder, shipped_unet, unet_start

NAME = "faces_diffusevae"
VERSION = 2
PLAN = training.Plan(
    name=NAME, steps=800, batch=32, lr=8e-4, flat=0.4, seed=57, ema=0.998, fresh=FIRST
)


def network() -> UNet2DModel:
    """The denoiser of ``faces_ddpm`` with three more input channels, whose weights are zero."""
    unet, start = shipped_unet(in_channels=6), shipped_unet()
    kernel = torch.cat([start.conv_in.weight, torch.zeros_like(start.conv_in.weight)], 1)
    unet.conv_in.weight.data.copy_(kernel)
    return unet


def _loss(unet: UNet2DModel, plan: training.Plan, data: CachedFaces) -> training.Loss:
    noising, device = faces_ddpm.scheduler(), data.device
    vae = shipped_autoencoder().to(device)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        images, _ = data.batch(plan, step)
        noise = torch.randn(images.shape, generator=generator).to(device)
        t = (training.stratified_uniforms(plan.batch, generator) * 1000).long().to(device)
        draw = torch.randn(plan.batch, vae.config.code, generator=generator).to(device)
        with training.autocast(device):
            with torch.no_grad():
                decoded = vae.decode(vae.sample(images, draw))
            noisy = noising.add_noise(images, noise, t)
            predicted = unet(torch.cat([noisy, decoded.float()], 1), t).sample
        return (predicted.float() - noising.get_velocity(images, noise, t)).square().mean()

    return loss


def make(
    folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = COUNT
) -> dict[str, object]:
    """Train (or go on training) and write the folder; gives the facts for the card."""
    data = CachedFaces(root, count, device)
    unet, facts = training.fit(
        network, _loss, PLAN, data, device=device, root=root, share=share, count=count
    )
    training.save_half(folder, unet=unet)
    DDIMScheduler.from_config(faces_ddpm.scheduler().config).save_pretrained(folder / "scheduler")
    return {"unet": facts | unet_start()}


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Samples at 10 and 50 steps; what the code and the noise each hold."""
    figures = {}
    for steps in (10, 50):
        model = DiffuseVAE(path=str(folder), vae=faces_vae.NAME, steps=steps, device=str(device))
        figures[f"steps_{steps}"] = semantic_figures(model, judges, n)
    return figures
