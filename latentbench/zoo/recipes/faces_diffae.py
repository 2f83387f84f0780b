"""``faces_diffae``: a diffusion autoencoder on 32-pixel faces.

The U-Net starts from ``faces_ddpm`` and the encoder from the means of ``faces_vae``; the path
between them starts at zero, so the first step is the unconditional model. A tenth of the faces
are shown without their code, which keeps that model alive. The prior of the codes is trained last.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.models.diffusion_autoencoder import (
    CodePrior,
    DiffusionAutoencoder,
    SemanticEncoder,
)
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.recipes import faces_ddpm
from latentbench.zoo.recipes.cached_faces import COUNT, FIRST, SIZE, CachedFaces
from latentbench.zoo.recipes.semantic_figures import semantic_figures
from latentbench.zoo.recipes.shipped import shipped_means, shipped_unet, unet_start

NAME = "faces_diffae"
VERSION = 1
CODE = 64
PLAN = training.Plan(
    name=NAME, steps=1600, batch=32, lr=8e-4, flat=0.5, seed=55, ema=0.998, fresh=FIRST
)
PRIOR_PLAN = training.Plan(
    name="faces_diffae_prior", steps=5000, batch=256, lr=1e-3, flat=0.4, seed=56, fresh=FIRST,
    save_every=1000,
)  # fmt: skip
WITHOUT_CODE = 0.1


class Autoencoder(nn.Module):
    """Encoder and denoiser, trained together."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = shipped_unet(class_embed_type="identity")
        embedding = self.unet.time_embedding.linear_2.out_features
        self.semantic = SemanticEncoder(image_size=SIZE, code=CODE, embedding=embedding)
        self.semantic.encoder.load_state_dict(shipped_means())

    def forward(
        self, x: Float[Tensor, "b 3 h w"], t: Tensor, code: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return the U-Net's output under a code."""
        return self.unet(x, t, class_labels=self.semantic.embed(code)).sample


def _loss(both: Autoencoder, plan: training.Plan, data: CachedFaces) -> training.Loss:
    noising, device = faces_ddpm.scheduler(), data.device

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        images, _ = data.batch(plan, step)
        noise = torch.randn(images.shape, generator=generator).to(device)
        t = (training.stratified_uniforms(plan.batch, generator) * 1000).long().to(device)
        told = (torch.rand(plan.batch, 1, generator=generator) >= WITHOUT_CODE).to(device)
        with training.autocast(device):
            code = both.semantic.encode(images) * told
            predicted = both(noising.add_noise(images, noise, t), t, code)
        return (predicted.float() - noising.get_velocity(images, noise, t)).square().mean()

    return loss


@torch.no_grad()
def standardise(semantic: SemanticEncoder, data: CachedFaces) -> Tensor:
    """Give z_sem mean 0 and spread 1 over all faces, exactly; returns their codes."""
    raw = data.read(semantic.encoder)
    semantic.normalise.running_mean.copy_(raw.mean(0))
    semantic.normalise.running_var.copy_(raw.var(0))
    return semantic.normalise(raw)


def _prior_loss(
    prior: CodePrior, plan: training.Plan, codes: Float[Tensor, "n d"]
) -> training.Loss:
    noising = faces_ddpm.scheduler()

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        rows = torch.randint(len(codes), (plan.batch,), generator=generator)
        z = codes[rows.to(codes.device)]
        noise = torch.randn(z.shape, generator=generator).to(z.device)
        t = (training.stratified_uniforms(plan.batch, generator) * 1000).long().to(z.device)
        predicted = prior(noising.add_noise(z, noise, t), t)
        return (predicted - noising.get_velocity(z, noise, t)).square().mean()

    return loss


def make(
    folder: Path, device: torch.device, root: Path, share: float = 1.0, *, count: int = COUNT
) -> dict[str, object]:
    """Train both stages (or go on training), write the folder; gives the facts for the card."""
    data = CachedFaces(root, count, device)
    both, facts = training.fit(
        Autoencoder, _loss, PLAN, data, device=device, root=root, share=share, count=count
    )
    codes = standardise(both.eval().semantic, data)
    prior, prior_facts = training.fit(
        lambda: CodePrior(code=CODE), _prior_loss, PRIOR_PLAN, codes,
        device=device, root=root, share=share, count=count,
    )  # fmt: skip
    training.save_half(folder, unet=both.unet, semantic_encoder=both.semantic, code_prior=prior)
    DDIMScheduler.from_config(faces_ddpm.scheduler().config).save_pretrained(folder / "scheduler")
    return {"encoder_and_unet": facts | unet_start(), "code_prior": prior_facts}


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Samples of both priors; what z_sem and x_T each hold, at 50 steps."""
    model = DiffusionAutoencoder(path=str(folder), steps=50, device=str(device))
    return semantic_figures(model, judges, n)
