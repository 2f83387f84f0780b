"""``faces_ddpm``: an unconditional pixel DDPM on 32-pixel faces, in DDPMPipeline's layout.

Trained in stages: it learns the shapes by predicting the noise, then goes on with v-prediction
(Salimans & Ho 2022, appendix D), first briefly, then long, and last with half of the images below
t = 250. The first stage alone draws sharp faces in wrong colours: an error of 0.017 in the mean of
the predicted noise is multiplied by 130 on the way to the image at t = 980. The last one is for the
small parts: under linear betas noise is three times the image already at t = 470, so that timesteps
drawn evenly spend half of the training where eyes and hair cannot be seen.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import set_distance

NAME = "faces_ddpm"
VERSION = 2
SIZE = 32
NOISE_PLAN = training.Plan(
    name="faces_ddpm_noise", steps=2600, batch=32, lr=1e-3, flat=0.55, seed=11
)
PLAN = training.Plan(
    name=NAME, steps=1500, batch=32, lr=8e-4, flat=0.3, seed=12, ema=0.998, fresh=4_000_000
)
LONG_PLAN = training.Plan(
    name="faces_ddpm_long", steps=6000, batch=32, lr=8e-4, flat=0.4, seed=13, fresh=5_000_000
)
DETAIL_PLAN = training.Plan(
    name="faces_ddpm_detail", steps=2400, batch=32, lr=8e-4, flat=0.2, seed=14, fresh=5_500_000
)


def network() -> UNet2DModel:
    """U-Net with attention at 8x8 and in the middle."""
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,
    )


def scheduler(prediction: str = "v_prediction") -> DDPMScheduler:
    """Linear betas, 1000 steps; no clipping, so that inversion stays exact."""
    return DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="linear", clip_sample=False,
        prediction_type=prediction,
    )  # fmt: skip


def _loss(
    unet: UNet2DModel,
    plan: training.Plan,
    device: torch.device,
    prediction: str,
    power: float,
    style: str,
) -> training.Loss:
    noising = scheduler(prediction)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        factors = training.batch_factors(plan, "generator", step, device)
        images = faces.render(factors, SIZE, style)
        noise = torch.randn(images.shape, generator=generator).to(device)
        uniforms = training.stratified_uniforms(plan.batch, generator)
        t = (uniforms**power * 1000).long().to(device)
        velocity = prediction == "v_prediction"
        target = noising.get_velocity(images, noise, t) if velocity else noise
        with training.autocast(device):
            predicted = unet(noising.add_noise(images, noise, t), t).sample
        return (predicted.float() - target).square().mean()

    return loss


def train(
    unet: UNet2DModel,
    plan: training.Plan,
    device: torch.device,
    root: Path,
    prediction: str = "v_prediction",
    power: float = 1.0,
    style: str = "photo",
) -> float:
    """Train where it is, or go on training, up to averaged weights.

    Args:
        unet: The network; its weights are changed.
        plan: Steps, rate, seed.
        device: Where it is.
        root: Folder of the checkpoints.
        prediction: What it predicts: ``"epsilon"`` or ``"v_prediction"``.
        power: Timesteps are 1000 u**power with u even in [0, 1): above 1, low noise comes oftener.
        style: How the faces are drawn.

    Returns:
        The seconds spent over all calls.
    """
    return training.train(
        unet, _loss(unet, plan, device, prediction, power, style), plan, root=root
    )


def save(unet: UNet2DModel, folder: Path) -> None:
    """Write the pipeline's folder with float16 weights."""
    pipeline = DDPMPipeline(unet=unet.half(), scheduler=scheduler())
    pipeline.save_pretrained(folder, safe_serialization=True)


@torch.no_grad()
def sample(
    folder: Path, n: int, device: torch.device, *, steps: int = 50, seed: int = 0, batch: int = 64
) -> Float[Tensor, "n 3 32 32"]:
    """Deterministic DDIM samples of the saved model, in [-1, 1]."""
    unet = UNet2DModel.from_pretrained(folder / "unet").to(device).eval()
    ddim = DDIMScheduler.from_pretrained(folder / "scheduler")
    ddim.set_timesteps(steps)
    noise = torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    out = []
    for x in noise.to(device).split(batch):
        for t in ddim.timesteps:
            with training.autocast(device):
                eps = unet(x, t).sample
            x = ddim.step(eps.float(), t, x).prev_sample
        out.append(x.clamp(-1, 1).float())
    return torch.cat(out)


def make(folder: Path, device: torch.device, root: Path, share: float = 1.0) -> dict[str, object]:
    """Train (or go on training) and write the pipeline's folder; gives the facts for the card."""
    first, second, third, fourth = (
        training.shortened(plan, share) for plan in (NOISE_PLAN, PLAN, LONG_PLAN, DETAIL_PLAN)
    )
    torch.manual_seed(first.seed)
    unet = training.plain_attention(network()).to(device)
    first_seconds = train(unet, first, device, root, "epsilon")
    seconds = train(unet, second, device, root)
    long_seconds = train(unet.half().float(), third, device, root)
    detail_seconds = train(unet, fourth, device, root, power=2.0)
    save(unet.eval(), folder)
    return {
        "noise_prediction": training.facts(first, "generator", first_seconds),
        "v_prediction": training.facts(second, "generator", seconds),
        "v_prediction_long": training.facts(third, "generator", long_seconds),
        "v_prediction_detail": training.facts(fourth, "generator", detail_seconds),
    }


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Frechet distance of n samples at 50 DDIM steps, with the floor at the same n."""
    images = sample(folder, n, device).cpu()
    return {
        "sampler": "DDIM, 50 steps, eta 0, bfloat16 autocast",
        "sets": [set_distance(judge, images, SIZE) for judge in judges],
    }
