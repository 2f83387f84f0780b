"""``faces_smooth``: ``faces_ldm`` with a Smooth-LoRA, trained to even out how much eps moves x0.

"Smooth Diffusion: Crafting Smooth Latent Spaces in Diffusion Models", section 3.3, equations 7 to
14, and Smooth-LoRA. To the loss that ``faces_ldm`` was trained with comes

    L_reg = E ( sqrt(1 - abar_t) || J^T u || - a )^2,    J = d x0_hat / d eps,

where u is a random direction and a the running mean of the first term. As in the published code u
is Gaussian with an expected squared length of 1, and the gradient also passes through the running
mean. Deviations: the network predicts v, so x0_hat is made from v; captions are dropped as often as
in the base model's training; the mean starts at the first batch's and is a plain mean at first,
since one that starts at 0 and moves by a hundredth a step would pull a short run towards a network
that lets nothing of eps through. The run is a short one, for a CPU core: do not judge the
paper by it.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from peft import LoraConfig
from torch import Tensor, nn

from latentbench import weights
from latentbench.data import faces
from latentbench.models.lora import AdaptedDiffusion
from latentbench.parameterization import split_prediction
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import caption_accuracy, set_distance
from latentbench.zoo.recipes import face_latents, faces_lcm, faces_ldm

NAME = "faces_smooth"
VERSION = 1
FACES = 2048
PLAN = training.Plan(
    name=NAME, steps=400, batch=8, lr=5e-4, flat=1.0, seed=62, ema=0.95, weight_decay=1e-4,
    save_every=25, fresh=face_latents.FIRST,
)  # fmt: skip
RANK = 8
LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
LAMBDA = 1.0
DECAY = 0.01  # of the running mean
TIMES = (100, 300, 500, 700, 900)  # at which the card says how much eps moves x0
STEPS, GUIDANCE = 20, 3.0  # of the card's samples


# ---------------------------------------------------------------- the penalty


def direction(shape: Sequence[int], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """Return a random u for each image, of expected squared length 1."""
    return torch.randn(*shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


def variations(
    x0: Float[Tensor, "b c h w"],
    eps: Float[Tensor, "b c h w"],
    u: Float[Tensor, "b c h w"],
    sigma: Float[Tensor, "b 1 1 1"],
) -> Float[Tensor, " b"]:
    """Return ``sigma || J^T u ||`` of each image, J = d x0 / d eps, itself differentiable.

    Args:
        x0: made from `eps`, image by image.
        eps: noise that requires a gradient.
        u: directions.
        sigma: sqrt(1 - abar_t).
    """
    (product,) = torch.autograd.grad((x0 * u * sigma).sum(), eps, create_graph=True)
    return product.flatten(1).norm(dim=1)


def penalty(
    v: Float[Tensor, " b"], mean: Float[Tensor, ""], decay: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the mean squared distance of the variations from their running mean, and that mean.

    Args:
        v: variations of a batch.
        mean: the running mean before this batch.
        decay: share of the way that it moves to this batch's mean.
    """
    moved = mean + decay * (v.mean() - mean)
    return (v - moved).square().mean(), moved.detach()


# ---------------------------------------------------------------- training


class Smoothed(nn.Module):
    """A U-Net with the running mean of its variations, so that a checkpoint holds both."""

    mean: Tensor

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("mean", torch.zeros(()))


def network() -> Smoothed:
    """Return the U-Net of ``faces_ldm``, frozen, with an adapter that changes nothing yet.

    Its attention is the plain one: the fused one has no second derivative.
    """
    unet = faces_lcm.unet()
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
    return Smoothed(unet)


class Denoising:
    """Noised latents of captioned faces, and what a U-Net makes of them.

    Args:
        device: where the networks are.
    """

    def __init__(self, device: torch.device) -> None:
        base = faces_ldm.load(weights.folder(faces_ldm.NAME))
        self.text, self.tokens = base.text_encoder.to(device), base.tokenizer
        self.levels = faces_ldm.scheduler().alphas_cumprod.to(device)

    def ids(self, captions: Sequence[str]) -> Int[Tensor, "b t"]:
        """Return captions as tokens."""
        return faces_ldm.token_ids(self.tokens, captions).to(self.levels.device)

    def level(self, t: Int[Tensor, " b"]) -> tuple[Float[Tensor, "b 1 1 1"], ...]:
        """Return (alpha, sigma) of timesteps."""
        abar = self.levels[t].reshape(-1, 1, 1, 1)
        return abar.sqrt(), (1 - abar).sqrt()

    def predict(
        self,
        unet: UNet2DConditionModel,
        z0: Float[Tensor, "b c h w"],
        eps: Float[Tensor, "b c h w"],
        t: Int[Tensor, " b"],
        ids: Int[Tensor, "b t"],
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Return the network's velocity, and x0_hat; both lead back to eps."""
        alpha, sigma = self.level(t)
        x = alpha * z0 + sigma * eps
        with torch.no_grad():
            c = self.text(ids).last_hidden_state
        velocity = unet(x, t, c).sample
        x0, _ = split_prediction("v_prediction", velocity, x, alpha, sigma)
        return velocity, x0


def _loss(module: Smoothed, plan: training.Plan, data: face_latents.FaceLatents) -> training.Loss:
    device = data.latents.device
    denoising = Denoising(device)
    ids, empty = denoising.ids(faces.caption(data.factors.cpu())), denoising.ids([""])

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        rows = torch.randint(len(ids), (plan.batch,), generator=generator).to(device)
        t = (training.stratified_uniforms(plan.batch, generator) * 1000).long().to(device)
        z0 = data.latents[rows]
        noise = torch.randn(z0.shape, generator=generator).to(device)
        dropped = torch.rand(plan.batch, 1, generator=generator) < faces_ldm.EMPTY_SHARE
        u = direction(z0.shape, generator).to(device)
        alpha, sigma = denoising.level(t)
        eps = noise.clone().requires_grad_()
        words = torch.where(dropped.to(device), empty, ids[rows])
        with training.autocast(device):
            velocity, x0 = denoising.predict(module.unet, z0, eps, t, words)
        error = velocity - (alpha * noise - sigma * z0)
        base = (data.weights[rows] * error.square()).mean()
        v = variations(x0, eps, u, sigma)
        regularisation, mean = penalty(v, module.mean, max(DECAY, 1 / (step + 1)))
        module.mean = mean
        return base + LAMBDA * regularisation

    return loss


def origin() -> dict[str, object]:
    """Name the weights below the adapter, for the card."""
    told = faces_lcm.origin()
    return {"base": told["teacher"], "base_unet_sha256": told["teacher_unet_sha256"]}


def save(folder: Path, module: Smoothed) -> None:
    """Write the adapter in float16, as diffusers' `load_lora_weights` reads it."""
    faces_lcm.save(folder, module.unet)


make = functools.partial(
    face_latents.recipe("adapter", network, _loss, PLAN, save, origin), count=FACES
)


# ---------------------------------------------------------------- figures


@torch.enable_grad()
def spread(
    unet: UNet2DConditionModel,
    denoising: Denoising,
    z0: Float[Tensor, "n c h w"],
    captions: Sequence[str],
    t: int,
    batch: int = 16,
) -> Mapping[str, float]:
    """Return mean and coefficient of variation of the variations at one timestep."""
    generator, found, ids = torch.Generator().manual_seed(t), [], denoising.ids(captions)
    for rows in torch.arange(len(z0)).split(batch):
        eps = torch.randn(z0[rows].shape, generator=generator).to(z0.device).requires_grad_()
        u = direction(z0[rows].shape, generator).to(z0.device)
        times = torch.full((len(rows),), t, device=z0.device)
        _, x0 = denoising.predict(unet, z0[rows], eps, times, ids[rows])
        found.append(variations(x0, eps, u, denoising.level(times)[1]).detach())
    v = torch.cat(found)
    return {"mean": round(float(v.mean()), 4), "cv": round(float(v.std() / v.mean()), 4)}


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Set distances, obedience to captions, and the variations with and without the adapter."""
    factors = faces.sample_factors("test", torch.arange(200_000, 200_000 + n))
    captions = faces.caption(factors)
    model = AdaptedDiffusion(path=faces_ldm.NAME, adapter=str(folder), device=str(device))
    images = face_latents.sample(model, captions, guidance=GUIDANCE, steps=STEPS)
    some = min(n, 64)
    with torch.no_grad():
        z0 = model.encode(faces.render(factors[:some], face_latents.SIZE))
    denoising = Denoising(device)
    nets = {"base": faces_lcm.unet().to(device), "adapted": training.plain_attention(model.network)}
    return {
        "sampler": f"DDIM, {STEPS} steps, eta 0, guidance {GUIDANCE:g}, bfloat16 autocast",
        "n": n,
        "sets": [set_distance(judge, images, face_latents.SIZE) for judge in judges],
        "caption_accuracy": {j.name: caption_accuracy(j, images, captions) for j in judges},
        "variations": {
            f"t_{t}": {
                name: dict(spread(net, denoising, z0, captions[:some], t))
                for name, net in nets.items()
            }
            for t in TIMES
        }
        | {"n": some},
    }
