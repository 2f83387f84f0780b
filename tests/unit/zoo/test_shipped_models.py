"""The loop against plain diffusers on the shipped weights; figures in docs/zoo_figures.md."""

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DModel

from latentbench import weights
from latentbench.cache import Cache
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Endpoint
from methods.generation.plain import PlainSampling
from methods.interpolation.aid import AttentionInterpolation

PROMPTS = [
    "a face",
    "narrow oblong fair wideset greeneyed black cropped straight smallnosed thinbrowed smiling",
]


def pixel_difference(steps: int) -> float:
    model = PixelDiffusion(path="faces_ddpm", steps=steps)
    noise = Streams(0).normal("prior", ["a", "b"], model.latent_shape)
    empty = model.condition(None, 2)
    ours = model.decode(generate(model, noise, guided(empty, empty, 1.0)))
    folder = weights.folder("faces_ddpm")
    unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    return float((ours - x).abs().max())


def latent_difference(steps: int, guidance: float) -> float:
    model = LatentDiffusion(path="faces_ldm", steps=steps)
    noise = Streams(0).normal("prior", ["a", "b"], model.latent_shape)
    terms = guided(model.condition(PROMPTS, 2), model.condition(None, 2), guidance)
    ours = model.decode(generate(model, noise, terms))
    pipeline = StableDiffusionPipeline.from_pretrained(
        weights.folder("faces_ldm"), safety_checker=None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        PROMPTS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=noise,
        output_type="pt",
    ).images
    return float(((ours / 2 + 0.5).clamp(0, 1) - images).abs().max())


@torch.no_grad()
def test_pixel_model_gives_the_image_of_a_plain_diffusers_loop():
    assert pixel_difference(steps=5) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_latent_model_gives_the_image_of_stable_diffusion_pipeline(guidance):
    assert latent_difference(steps=5, guidance=guidance) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("mode", ["inner", "outer"])
@pytest.mark.slow
def test_end_frames_of_attention_interpolation_are_plain_generation(mode):
    model, streams = LatentDiffusion(path="faces_ldm", steps=4, guidance=3.0), Streams(0)
    path, plain = AttentionInterpolation(mode=mode, warmup=1.0), PlainSampling()
    for editor in (path, plain):
        editor.attach(model, streams, Cache(None))
    noise = streams.normal("prior", ["a"], model.latent_shape)
    ends = [Endpoint(("a",), noise, (prompt,)) for prompt in PROMPTS]
    frames = path.interpolate(*ends, 3)[0]
    for frame, end in ((0, ends[0]), (-1, ends[1])):
        image = plain.generate(("a",), end.prompts)[0]
        torch.testing.assert_close(frames[frame], image, rtol=0, atol=1e-4)
