"""``faces_infodiffusion``: a diffusion autoencoder whose codes follow N(0, I), on 32-pixel faces.

Source of the loss: "InfoDiffusion: Representation Learning Using Information Maximizing Diffusion
Models". Both networks start from those of ``faces_diffae``, thinned to three quarters of their
width. A tenth of the faces are shown without their code, for the first phase of sampling.

Deviations from the published code: its "reconstruction" term is left out, since it measures a
prediction at a random timestep as if it had been made at the last one, from the clean image; the
MMD is unbiased, with a kernel as wide as the median distance; the KL is a mean over the batch and
not a sum, so that its weight does not depend on the batch; the error is that of v.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.models.info_diffusion import GaussianEncoder, InfoDiffusion
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.recipes.cached_faces import SIZE
from latentbench.zoo.recipes.code_figures import code_figures
from latentbench.zoo.recipes.code_losses import gaussian_kl, mmd
from latentbench.zoo.recipes.encoded_denoiser import (
    EncodedDenoiser,
    denoising_error,
    indices_of_step,
    save,
    start_facts,
    start_from_diffae,
)
from latentbench.zoo.recipes.semantic_figures import semantic_figures
from latentbench.zoo.recipes.shipped import NARROW, narrow_unet

NAME, START = "faces_infodiffusion", "faces_diffae"
VERSION = 1
CODE = 64
PLAN = training.Plan(
    name=NAME, steps=1000, batch=32, lr=8e-4, flat=0.4, seed=71, ema=0.998, fresh=61_000_000,
    save_every=50,
)  # fmt: skip
MMD, KL = 0.1, 0.0  # weights of the two terms


def network(stochastic: bool = False) -> EncodedDenoiser:
    """Return denoiser and encoder as they start."""
    unet = narrow_unet(START)
    embedding = unet.time_embedding.linear_2.out_features
    semantic = GaussianEncoder(SIZE, NARROW, CODE, embedding, stochastic)
    start_from_diffae(semantic)
    return EncodedDenoiser(unet, semantic)


def code_terms(
    semantic: GaussianEncoder,
    images: Float[Tensor, "b 3 h w"],
    generator: torch.Generator,
    w_mmd: float,
    w_kl: float,
) -> tuple[Float[Tensor, "b d"], Float[Tensor, ""]]:
    """Return the codes of images, and w_mmd MMD(m, N(0, I)) + w_kl KL(q(a | x) || N(0, I)).

    m is the mean of q. Codes are drawn from q where the KL counts, though its MMD is of m, not of
    what is drawn; where it does not, q is a point and m the code.
    """
    noise = torch.randn(2, len(images), semantic.code, generator=generator).to(images.device)
    if w_kl:
        mean, log_variance = (v.float() for v in semantic.posterior(images))
        code = mean + (0.5 * log_variance).exp() * noise[0]
        penalty = w_kl * gaussian_kl(mean, log_variance).mean()
    else:
        mean = code = semantic.encode(images).float()
        penalty = torch.zeros((), device=images.device)
    return code, penalty + w_mmd * mmd(mean, noise[1])


def make(
    folder: Path,
    device: torch.device,
    root: Path,
    share: float = 1.0,
    *,
    w_mmd: float = MMD,
    w_kl: float = KL,
) -> dict[str, object]:
    """Train (or go on training) and write the folder; gives the facts for the card.

    Args:
        folder: where the networks go.
        device: where to train.
        root: folder of the checkpoints.
        share: factor on the steps.
        w_mmd: weight of the MMD.
        w_kl: weight of the KL, in nats per face.
    """
    plan = replace(PLAN, name=f"{NAME}_mmd{w_mmd:g}_kl{w_kl:g}")

    def loss(both: EncodedDenoiser, plan: training.Plan, device: torch.device) -> training.Loss:
        def of_step(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
            index = indices_of_step(plan, step, device)
            images = faces.render(faces.sample_factors("generator", index), SIZE)
            with training.autocast(device):
                code, penalty = code_terms(both.semantic, images, generator, w_mmd, w_kl)
                return denoising_error(both, images, code, generator) + penalty

        return of_step

    both, facts = training.fit(
        lambda: network(w_kl > 0), loss, plan, device,
        device=device, root=root, share=share, count=None,
    )  # fmt: skip
    save(folder, both)
    return {"encoder_and_unet": facts | start_facts(START) | {"w_mmd": w_mmd, "w_kl": w_kl}}


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Samples of the prior, what z_sem and x_T each hold, and what codes tell, at 50 steps."""
    model = InfoDiffusion(path=str(folder), steps=50, device=str(device))
    return semantic_figures(model, judges, n) | {"codes": code_figures(model, n)}
