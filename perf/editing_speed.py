"""What edits cost next to the published codes: CPU time of ours and of theirs within one run.

    python -m perf.editing_speed [edit_friendly] [img2img] [cycle] [ledits] [--images 8]

Both sides have the same networks with seeded random weights, a denoiser of Stable Diffusion's kind
made small, and edit the same images with the same steps, guidance and strength, one strength each.
Theirs edits one image after the other and, where it can, all of them in a call; ours takes them in
a batch. The two take turns in one thread; shown is the least CPU time of three. The published loop
of edit-friendly DDPM is written out here (`as_published`), call by call; the others are pipelines
of diffusers, whose cycle diffusion reads the first image alone where it is given several, and is
measured one by one only. "rows" are those that each side gives the denoiser.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, LEditsPPPipelineStableDiffusion, StableDiffusionImg2ImgPipeline
from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_cycle_diffusion import (
    CycleDiffusionPipeline,
)
from diffusers.schedulers import DPMSolverMultistepScheduler
from diffusers.utils import logging
from torch import Tensor

from latentbench.cache import Cache
from latentbench.command import answered, count
from latentbench.editor import Editor
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.sdedit import SDEdit
from methods.inversion.cycle_diffusion import CycleDiffusion
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM
from methods.inversion.ledits_pp import LEDITSPlusPlus
from perf.denoiser_speed import save_sd15

SIZES = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64, 64),
    "norm_num_groups": 8,
    "attention_head_dim": 4,
}
SOURCE, TARGET = "a face", "a face with hat"
GUIDANCE, KEPT, SKIPPED = 3.0, 0.5, 0.5  # strength of img2img, share of the steps left out
TURNS = 3


class Editing:
    """The images to edit, and the networks of both sides.

    Args:
        folder: of the networks.
        images: how many images.
        steps: sampling steps.
    """

    def __init__(self, folder: str, images: int, steps: int) -> None:
        self.model = LatentDiffusion(path=folder, steps=steps)
        self.folder, self.steps, self.n = folder, steps, images
        size = self.model.image_size
        pixels = torch.rand(images, 3, size, size, generator=torch.manual_seed(0)) * 2 - 1
        ids, prompts = tuple(f"image{k}" for k in range(images)), (SOURCE,) * images
        self.batch = Batch(ids, pixels, prompts=prompts)
        self.wanted = Edit("hat+", "hat", 1, prompts, (TARGET,) * images, words=("no hat", "hat"))
        self.parts: dict[str, Any] = {
            "vae": self.model.vae,
            "text_encoder": self.model.text_encoder,
            "tokenizer": self.model.tokenizer,
            "unet": self.model.network,
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }

    def ours(self, editor: Editor, strength: float) -> Callable[[], object]:
        """Return our edit of all images; nothing is kept between calls."""
        editor.attach(self.model, Streams(0), Cache(None), {})
        return lambda: editor.edit(self.batch, self.wanted, torch.tensor([strength]))

    def pipeline(self, cls: Any, scheduler: Any) -> Any:
        """Return a pipeline of diffusers on the same networks."""
        made = cls(**self.parts, scheduler=scheduler)
        made.set_progress_bar_config(disable=True)
        return made

    def pictures(self) -> Tensor:
        """Return the images as diffusers takes them, in 0..1."""
        return self.batch.images / 2 + 0.5


def edit_friendly(given: Editing) -> None:
    ours = given.ours(
        EditFriendlyDDPM(steps=given.steps, skip=SKIPPED, guidance_target=GUIDANCE), 1.0
    )
    report("edit-friendly DDPM: the published loop", given, ours, lambda: as_published(given))


def as_published(given: Editing) -> None:
    """Invert and edit one image after the other, a network call per step and branch."""
    model, grid = given.model, given.model.grid(given.steps)
    source, target, null = (model.condition([t], 1).tensors for t in (SOURCE, TARGET, ""))
    start = int(SKIPPED * grid.n)
    levels = torch.arange(start, grid.n)
    for k in range(given.n):
        x0 = model.encode(given.batch.images[k : k + 1])
        alpha, sigma = grid.levels(levels, x0[None])
        noised = (alpha * x0[None] + sigma * torch.randn(1, len(levels), *x0.shape[1:]))[0]
        x, z = [*noised.split(1), x0], []
        for i in range(len(levels)):
            mean, std = ddpm(model, grid, start + i, x[i], source)
            z.append((x[i + 1] - mean) / std if std > 0 else x[i + 1] - mean)
        edited = x[0]
        for i in range(len(levels)):
            t = torch.full((1,), float(grid.timesteps[start + i]))
            towards = model.network(edited, t, **target, return_dict=False)[0]
            away = model.network(edited, t, **null, return_dict=False)[0]
            eps = away + GUIDANCE * (towards - away)
            mean, std = step(grid, start + i, edited, eps)
            edited = mean + (std * z[i] if std > 0 else z[i])
        model.decode(edited)


def ddpm(model: LatentDiffusion, grid: Any, i: int, x: Tensor, told: Any) -> tuple[Tensor, float]:
    """Return mean and std of a DDPM step under one condition."""
    t = torch.full((1,), float(grid.timesteps[i]))
    return step(grid, i, x, model.network(x, t, **told, return_dict=False)[0])


def step(grid: Any, i: int, x: Tensor, eps: Tensor) -> tuple[Tensor, float]:
    """Return mean and std of a DDPM step (eta 1)."""
    (a, s), (b, r) = ((float(grid.alpha[k]), float(grid.sigma[k])) for k in (i, i + 1))
    std = r / s * max(0.0, 1 - (a / b) ** 2) ** 0.5
    return b * (x - s * eps) / a + max(0.0, r**2 - std**2) ** 0.5 * eps, std


def img2img(given: Editing) -> None:
    ours = given.ours(SDEdit(steps=given.steps, guidance=GUIDANCE), KEPT)
    pipe = given.pipeline(StableDiffusionImg2ImgPipeline, ddim(given))

    def theirs(images: Tensor) -> object:
        return pipe([TARGET] * len(images), images, strength=KEPT, guidance_scale=GUIDANCE,
                    num_inference_steps=given.steps, output_type="pt")  # fmt: skip

    both("img2img", given, ours, theirs)


def cycle(given: Editing) -> None:
    editor = CycleDiffusion(steps=given.steps, eta=0.1, skip=SKIPPED, guidance_target=GUIDANCE)
    pipe = given.pipeline(CycleDiffusionPipeline, ddim(given))

    def theirs(images: Tensor) -> object:
        prompts = [[text] * len(images) for text in (TARGET, SOURCE)]
        return pipe(*prompts, images, strength=1 - SKIPPED, guidance_scale=GUIDANCE, eta=0.1,
                    num_inference_steps=given.steps, output_type="pt")  # fmt: skip

    one_by_one("cycle diffusion", given, given.ours(editor, 1.0), theirs)


def ledits(given: Editing) -> None:
    editor = LEDITSPlusPlus(steps=given.steps, skip=0.2, threshold=0.75, concept="words")
    plan = DPMSolverMultistepScheduler.from_config(
        ddim(given).config, algorithm_type="sde-dpmsolver++", solver_order=2
    )
    pipe = given.pipeline(LEditsPPPipelineStableDiffusion, plan)

    def theirs(images: Tensor) -> object:
        pipe.invert(images, num_inversion_steps=given.steps, skip=0.2)
        return pipe(editing_prompt=["hat"], edit_guidance_scale=5.0, edit_threshold=0.75,
                    use_intersect_mask=False, output_type="pt")  # fmt: skip

    both("LEDITS++", given, given.ours(editor, 5.0), theirs)


def ddim(given: Editing) -> Any:
    """Return a scheduler on the model's own noise levels."""
    return DDIMScheduler.from_pretrained(given.folder, subfolder="scheduler")


PARTS: dict[str, Callable[[Editing], None]] = {
    "edit_friendly": edit_friendly, "img2img": img2img, "cycle": cycle, "ledits": ledits,
}  # fmt: skip


def both(
    name: str, given: Editing, ours: Callable[[], object], theirs: Callable[[Tensor], object]
) -> None:
    """Print how theirs compares one by one, and in one call."""
    one_by_one(name, given, ours, theirs)
    report(f"{name} of diffusers, in one call", given, ours, lambda: theirs(given.pictures()))


def one_by_one(
    name: str, given: Editing, ours: Callable[[], object], theirs: Callable[[Tensor], object]
) -> None:
    """Print how theirs compares one by one."""
    images = given.pictures().split(1)
    report(f"{name} of diffusers, one by one", given, ours, lambda: [theirs(x) for x in images])


def report(
    name: str, given: Editing, ours: Callable[[], object], theirs: Callable[[], object]
) -> None:
    """Print a row: images a second of both, their ratio, and the denoiser's rows of both."""
    least, rows = [float("inf")] * 2, [0, 0]
    for _ in range(TURNS):
        for k, call in enumerate((ours, theirs)):
            with counted(given.model.network) as counts:
                start = time.process_time()
                call()
                least[k] = min(least[k], time.process_time() - start)
            rows[k] = sum(counts)
    mine, other = (given.n / seconds for seconds in least)
    figures = f"{mine:8.2f}/s {other:8.2f}/s {mine / other:6.2f}x  rows {rows[0]} : {rows[1]}"
    print(f"{name:42} {figures}", flush=True)


@contextmanager
def counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """Yield the rows of each call of a network inside the block."""
    counts: list[int] = []
    hook = network.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    try:
        yield counts
    finally:
        hook.remove()


def run(parts: Sequence[str], images: int, steps: int) -> int:
    """Print the table; return the exit code."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # one of its pipelines warns of images this small
    logging.disable_progress_bar()
    print(f"{'':42} {'ours':>10} {'theirs':>10} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        given = Editing(save_sd15(Path(folder), SIZES), images, steps)
        for part in parts or PARTS:
            PARTS[part](given)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser("python -m perf.editing_speed", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--images", type=count, default=8)
    parser.add_argument("--steps", type=count, default=10)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; known: {', '.join(PARTS)}")
    return answered(lambda: run(given.parts, given.images, given.steps))


if __name__ == "__main__":
    sys.exit(main())
