"""``faces_lcm``: ``faces_ldm`` distilled to a few steps, as a LoRA on its U-Net.

"Latent Consistency Models", algorithm 1, in the form of LCM-LoRA: the student is the teacher with
an adapter, and its target is itself, without gradient, one DDIM step of the guided teacher earlier.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from latentbench import weights
from latentbench.data import faces
from latentbench.models.latent_consistency import LatentConsistency
from latentbench.sampling.consistency import ConsistencyStep
from latentbench.sampling.loop import generate, guided
from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import caption_accuracy, set_distance
from latentbench.zoo.recipes import face_latents, faces_ldm
from latentbench.zoo.recipes.shipped import unet_hash

NAME = "faces_lcm"
VERSION = 2
PLAN = training.Plan(
    name=NAME, steps=450, batch=16, lr=1e-4, flat=0.5, seed=61, ema=0.95, weight_decay=0.0,
    save_every=25, fresh=face_latents.FIRST,
)  # fmt: skip
RANK = 24
LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
SOLVER_STEPS = 50
GUIDANCE = (1.0, 3.0)  # of w, the scale minus 1
HUBER = 0.001


def unet() -> UNet2DConditionModel:
    """The U-Net of ``faces_ldm``, frozen."""
    network = UNet2DConditionModel.from_pretrained(
        weights.folder(faces_ldm.NAME), subfolder="unet", use_safetensors=True
    )
    return training.plain_attention(network).requires_grad_(False)


def student() -> UNet2DConditionModel:
    """The teacher's U-Net with an adapter that changes nothing yet."""
    network = unet()
    network.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS))
    return network


def scheduler() -> LCMScheduler:
    """The schedule of ``faces_ldm`` on the timesteps of LCM."""
    return LCMScheduler.from_pretrained(weights.folder(faces_ldm.NAME), subfolder="scheduler")


class Consistency:
    """The parts of the loss.

    Args:
        device: where the networks are.
    """

    def __init__(self, device: torch.device) -> None:
        self.scheduler = scheduler()
        self.levels = self.scheduler.alphas_cumprod.to(device)

    def split(
        self, v: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"], t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (x0, eps) of a velocity."""
        a = self.levels[t].reshape(-1, 1, 1, 1)
        alpha, sigma = a.sqrt(), (1 - a).sqrt()
        return alpha * x - sigma * v, sigma * x + alpha * v

    def solve(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Return x at timestep t, the end of a DDIM step."""
        a = self.levels[t].reshape(-1, 1, 1, 1)
        return a.sqrt() * x0 + (1 - a).sqrt() * eps

    def f(self, v: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the consistency function, c_skip x + c_out x0."""
        x0, _ = self.split(v, x, t)
        skip, out = self.scheduler.get_scalings_for_boundary_condition_discrete(t)
        return skip.reshape(-1, 1, 1, 1) * x + out.reshape(-1, 1, 1, 1) * x0


def _loss(
    network: UNet2DConditionModel, plan: training.Plan, data: face_latents.FaceLatents
) -> training.Loss:
    device, teacher = data.latents.device, unet().to(data.latents.device)
    base = faces_ldm.load(weights.folder(faces_ldm.NAME))
    text, consistency = base.text_encoder.to(device), Consistency(device)
    ids = faces_ldm.token_ids(base.tokenizer, faces.caption(data.factors.cpu())).to(device)
    empty = faces_ldm.token_ids(base.tokenizer, [""]).to(device)
    stride = 1000 // SOLVER_STEPS

    @torch.no_grad()
    def target(x: Tensor, t: Tensor, earlier: Tensor, w: Tensor, c: Tensor, null: Tensor) -> Tensor:
        """The student's x_0, one guided DDIM step of the teacher earlier."""
        both = teacher(torch.cat([x, x]), torch.cat([t, t]), torch.cat([c, null])).sample
        (x0, eps), (x0_null, eps_null) = (consistency.split(v, x, t) for v in both.float().chunk(2))
        nearer = consistency.solve(x0 + w * (x0 - x0_null), eps + w * (eps - eps_null), earlier)
        return consistency.f(network(nearer, earlier, c).sample.float(), nearer, earlier)

    def loss(step: int, generator: torch.Generator) -> Float[Tensor, ""]:
        rows = torch.randint(len(ids), (plan.batch,), generator=generator).to(device)
        place = (training.stratified_uniforms(plan.batch, generator) * SOLVER_STEPS).long()
        t = ((place + 1) * stride - 1).to(device)
        earlier = (t - stride).clamp(min=0)
        low, high = GUIDANCE
        w = low + (high - low) * torch.rand(plan.batch, 1, 1, 1, generator=generator).to(device)
        noise = torch.randn(data.latents[rows].shape, generator=generator).to(device)
        with training.autocast(device):
            with torch.no_grad():
                c = text(ids[rows]).last_hidden_state
                null = text(empty).last_hidden_state.expand_as(c)
            x = consistency.solve(data.latents[rows], noise, t)
            wanted = target(x, t, earlier, w, c, null)
            found = consistency.f(network(x, t, c).sample.float(), x, t)
        error = (found - wanted).square()
        return (data.weights[rows] * ((error + HUBER**2).sqrt() - HUBER)).mean()

    return loss


def origin() -> dict[str, object]:
    """Name the teacher's weights, for the card."""
    return {"teacher": faces_ldm.NAME, "teacher_unet_sha256": unet_hash(faces_ldm.NAME)}


def save(folder: Path, network: UNet2DConditionModel) -> None:
    """Write the adapter in float16, as diffusers' `load_lora_weights` reads it."""
    layers = get_peft_model_state_dict(network)
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=training.half(layers), safe_serialization=True
    )


make = face_latents.recipe("adapter", student, _loss, PLAN, save, origin)


@torch.no_grad()
def sample(
    model: LatentConsistency, captions: Sequence[str], *, steps: int, batch: int = 32
) -> Float[Tensor, "n 3 64 64"]:
    """Return multistep samples in [-1, 1]."""
    generator, out = torch.Generator().manual_seed(0), []
    noise = torch.randn(len(captions), steps + 1, *model.latent_shape, generator=generator)
    for first in range(0, len(captions), batch):
        prompts, z = list(captions[first : first + batch]), noise[first : first + batch]
        condition = model.condition(prompts, len(prompts))
        step = ConsistencyStep(model, lambda i, z=z: z[:, i + 1])
        with training.autocast(model.device):
            x = generate(
                model, z[:, 0].to(model.device), guided(condition, condition, 1.0),
                grid=model.grid(steps), interventions=[step],
            )  # fmt: skip
            out.append(model.decode(x).float().clamp(-1, 1).cpu())
    return torch.cat(out)


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Set distances and obedience to captions at 1, 2, 4 and 8 steps."""
    factors = faces.sample_factors("test", torch.arange(200_000, 200_000 + n))
    captions = faces.caption(factors)
    model = LatentConsistency(path=faces_ldm.NAME, adapter=str(folder), device=str(device))
    figures: dict = {"sampler": "multistep consistency, bfloat16 autocast", "n": n}
    for steps in (1, 2, 4, 8):
        images = sample(model, captions, steps=steps)
        figures[f"steps_{steps}"] = {
            "sets": [set_distance(judge, images, face_latents.SIZE) for judge in judges],
            "caption_accuracy": {j.name: caption_accuracy(j, images, captions) for j in judges},
        }
    return figures
