"""``faces_lines``: ``faces_ddpm`` tuned to line drawings of faces, in the same layout.

Scheduler and image size are those of ``faces_ddpm``, so that either model decodes what the other
has encoded. It starts from the photographs' weights and is trained on faces that ``faces_ddpm`` has
not seen: no face is ever shown in both styles. Low noise comes oftener than high, as in the last
stage of ``faces_ddpm``: lines are what an even choice of timesteps learns last.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from latentbench.zoo import training
from latentbench.zoo.judges import Judge
from latentbench.zoo.measures import set_distance
from latentbench.zoo.recipes import faces_ddpm
from latentbench.zoo.recipes.shipped import shipped_unet, unet_start

NAME = "faces_lines"
VERSION = 1
STYLE = "lines"
STAGES = 3
PLAN = training.Plan(
    name=NAME, steps=150, batch=8, lr=6e-4, flat=0.5, seed=71, ema=0.95, save_every=10,
    fresh=70_000_000,
)  # fmt: skip


def stages() -> list[training.Plan]:
    """The plan again and again, each time with other faces and another seed."""
    return [
        replace(PLAN, name=f"{NAME}_{k}", seed=PLAN.seed + k, fresh=PLAN.fresh + k * PLAN.images)
        for k in range(STAGES)
    ]


def make(folder: Path, device: torch.device, root: Path, share: float = 1.0) -> dict[str, object]:
    """Train (or go on training) and write the pipeline's folder; gives the facts for the card."""
    unet, told = shipped_unet().to(device), {}
    for k, plan in enumerate(training.shortened(stage, share) for stage in stages()):
        seconds = faces_ddpm.train(unet, plan, device, root, power=1.5, style=STYLE)
        start = {"start": f"{STYLE}_{k - 1}"} if k else unet_start()
        told[f"{STYLE}_{k}"] = training.facts(plan, "generator", seconds) | start
    faces_ddpm.save(unet.eval(), folder)
    return told


def measure(folder: Path, judges: Sequence[Judge], device: torch.device, n: int) -> dict:
    """Frechet distance of n samples to drawings at 50 DDIM steps, with the floor at the same n."""
    images = faces_ddpm.sample(folder, n, device).cpu()
    return {
        "sampler": "DDIM, 50 steps, eta 0, bfloat16 autocast",
        "sets": [set_distance(judge, images, faces_ddpm.SIZE, style=STYLE) for judge in judges],
    }
