"""The loop against plain diffusers on the shipped transformers; figures in docs/zoo_figures.md."""

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTTransformer2DModel,
    StableDiffusion3Pipeline,
)

from latentbench import weights
from latentbench.data import faces
from latentbench.models.dit import DiT
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.zoo.recipes import faces_dit

CAPTIONS = faces.caption(faces.sample_factors("test", torch.arange(2)))


def ours(model, noise, guidance: float) -> torch.Tensor:
    terms = guided(model.condition(CAPTIONS, 2), model.condition(None, 2), guidance)
    return model.decode(generate(model, noise, terms))


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_mmdit_gives_the_image_of_stable_diffusion_3_pipeline(guidance):
    model = TransformerFlow(path="faces_mmdit", vae="faces_ldm", steps=4)
    noise = Streams(0).normal("prior", ["a", "b"], model.latent_shape)
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        weights.folder("faces_mmdit"),
        vae=AutoencoderKL.from_pretrained(weights.folder("faces_ldm"), subfolder="vae"),
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        CAPTIONS, num_inference_steps=4, guidance_scale=guidance, latents=noise, height=64,
        width=64, max_sequence_length=0, output_type="latent",
    ).images  # fmt: skip
    assert float((model.decode(latents) - ours(model, noise, guidance)).abs().max()) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_dit_gives_the_image_of_a_plain_diffusers_loop(guidance):
    """A loop, because DiTPipeline takes class 1000 for the null class."""
    model, folder = DiT(path="faces_dit", vae="faces_ldm", steps=4), weights.folder("faces_dit")
    x = noise = Streams(0).normal("prior", ["a", "b"], model.latent_shape)
    network = DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer")
    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(4)
    factors = faces.sample_factors("test", torch.arange(2))
    null = torch.full((2,), len(faces_dit.CLASSES))
    labels = torch.cat([faces_dit.class_labels(factors), null])
    for t in scheduler.timesteps:
        out = network(torch.cat([x, x]), timestep=t.expand(4), class_labels=labels).sample[:, :4]
        told, empty = out.chunk(2)
        x = scheduler.step(empty + guidance * (told - empty), t, x).prev_sample
    assert float((model.decode(x) - ours(model, noise, guidance)).abs().max()) < 1e-4


def test_each_caption_names_one_class():
    model = DiT(path="faces_dit", vae="faces_ldm")
    factors = faces.sample_factors("test", torch.arange(64))
    named = [model.class_of(caption) for caption in faces.caption(factors)]
    assert named == faces_dit.class_labels(factors).tolist()
    assert set(model.classes) == set(faces_dit.CLASSES)
