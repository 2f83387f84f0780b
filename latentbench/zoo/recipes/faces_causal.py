"""``faces_causal``: a diffusion autoencoder whose code obeys a causal graph, on 32-pixel faces.

Source of the loss: "Causal Diffusion Autoencoders". The faces are those of `CausalFaces`: age acts
on glasses and beard, a smile on the open mouth, and so on. Every factor has a block of the code and
a label. Both networks start from those of ``faces_infodiffusion``.

Deviations: labels are standardised; what the two divergences weigh is far less than there, where
their sum over a code of 512 numbers outweighs a mean over pixels; the noise that the code is given
has a thousandth of q's variance in training, as there, and none afterwards; which z stands for a
value of a factor is measured at the end. Labels are never missing.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.models.causal_diffusion import CausalDiffusion, CausalEncoder
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.recipes.cached_faces import SIZE
from latentbench.zoo.recipes.code_figures import code_figures
from latentbench.zoo.recipes.code_losses import gaussian_kl
from latentbench.zoo.recipes.encoded_denoiser import (
    EncodedDenoiser,
    denoising_error,
    indices_of_step,
    save,
    start_facts,
    start_from,
)
from latentbench.zoo.recipes.semantic_figures import semantic_figures
from latentbench.zoo.recipes.shipped import NARROW

NAME, START = "faces_causal", "faces_infodiffusion"
VERSION = 1
CORRELATION = 0.8  # of CausalFaces
EDGES = tuple((driver, follower) for driver, follower, _ in faces.CORRELATED)
PLAN = training.Plan(
    name=NAME, steps=500, batch=32, lr=8e-4, flat=0.4, seed=72, ema=0.996, fresh=61_200_000,
    save_every=50,
)  # fmt: skip
BETA, RAMP = 0.005, 0.3  # weight of the divergences, reached after this share of the steps
NOISE = 0.001  # share of q's variance by which codes are noised in training
MEASURED = 2048  # faces by which the code is calibrated


def network() -> EncodedDenoiser:
    """Return denoiser and encoder as they start."""
    semantic = CausalEncoder(SIZE, NARROW, faces.FACTOR_NAMES, EDGES)
    return EncodedDenoiser(start_from(START, semantic), semantic)


def labels(factors: Float[Tensor, "b f"]) -> Float[Tensor, "b f"]:
    """Return factors with mean 0 and spread 1 over the faces."""
    index = torch.arange(PLAN.fresh, PLAN.fresh + MEASURED)
    table = faces.sample_factors("generator", index, CORRELATION).to(factors)
    return (factors - table.mean(0)) / table.std(0)


def code_terms(
    semantic: CausalEncoder,
    images: Float[Tensor, "b 3 h w"],
    y: Float[Tensor, "b f"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b d"], Float[Tensor, ""]]:
    """Return noised codes z, and KL(q(u | x) || N(0, I)) + sum_i KL(N(z_i, I) || N(y_i, I))."""
    mean, log_variance = (v.float() for v in semantic.posterior(images))
    z = semantic.predict(mean)
    noise = torch.randn(z.shape, generator=generator).to(z)
    known = y.repeat_interleave(semantic.block, 1)
    kl = gaussian_kl(mean, log_variance) + gaussian_kl(z, torch.zeros_like(z), known)
    return z + NOISE**0.5 * (0.5 * log_variance).exp() * noise, kl.mean()


def _loss(both: EncodedDenoiser, plan: training.Plan, device: torch.device) -> training.Loss:
    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        index = indices_of_step(plan, step, device)
        factors = faces.sample_factors("generator", index, CORRELATION)
        images = faces.render(factors, SIZE)
        beta = BETA * min(1.0, (step + 1) / (RAMP * plan.steps))
        with training.autocast(device):
            z, kl = code_terms(both.semantic, images, labels(factors), generator)
            return denoising_error(both, images, z, generator) + beta * kl

    return loss


@torch.no_grad()
def calibrate(semantic: CausalEncoder, device: torch.device) -> None:
    """Measure how u is spread over the faces, and which z stands for which value of a factor."""
    index = torch.arange(PLAN.fresh, PLAN.fresh + MEASURED, device=device)
    factors = faces.sample_factors("generator", index, CORRELATION)
    parts = [semantic.posterior(faces.render(part, SIZE))[0] for part in factors.split(64)]
    u = torch.cat(parts)
    semantic.u_mean.copy_(u.mean(0))
    semantic.u_spread.copy_(u.std(0))
    z = semantic.predict(u).unflatten(1, (len(semantic.factors), -1))
    f = (factors - factors.mean(0))[:, :, None]
    slope = (f * z).mean(0) / f.square().mean(0)
    semantic.low.copy_(z.mean(0) - factors.mean(0)[:, None] * slope)
    semantic.high.copy_(semantic.low + slope)


def make(folder: Path, device: torch.device, root: Path, share: float = 1.0) -> dict[str, object]:
    """Train (or go on training) and write the folder; gives the facts for the card."""
    both, facts = training.fit(
        network, _loss, PLAN, device, device=device, root=root, share=share, count=None
    )
    calibrate(both.eval().semantic, device)
    save(folder, both)
    graph = {"correlation": CORRELATION, "edges": [" -> ".join(edge) for edge in EDGES]}
    return {"encoder_and_unet": facts | start_facts(START) | graph}


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Samples of the prior, what z and x_T each hold, and what codes tell, at 50 steps."""
    model = CausalDiffusion(path=str(folder), steps=50, device=str(device))
    return semantic_figures(model, judges, n) | {"codes": code_figures(model, n)}
