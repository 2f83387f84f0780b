"""FLUX, on the configs of dev and schnell, shrunk; its laws in test_transformer_flow.py."""

import pytest
import torch
import transformers_toy as small
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from latentbench.errors import BadInput, MissingWeights
from latentbench.models.flux import Flux, pack, places, unpack
from latentbench.sampling.loop import generate, guided

PROMPTS = ("a face with hat", "smile")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("flux")
    return {
        "dev": small.save_flux(root / "dev", small.FLUX_DEV, small.DEV_SCHEDULE),
        "schnell": small.save_flux(root / "schnell", small.FLUX_SCHNELL, small.SCHNELL_SCHEDULE),
    }


def load(folders, name, **options):
    told = 3.5 if name == "dev" else None
    options = {"embedded_guidance": told, "image_size": 16, "steps": 4} | options
    return Flux(path=folders[name], t5_tokens=small.T5_TOKENS, **options)


def noise(model):
    return torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def sampled(model, scale=1.0):
    terms = guided(model.condition(PROMPTS, 2), model.condition(None, 2), scale)
    return model.decode(generate(model, noise(model), terms))


def pipeline_of(model):
    pipeline = FluxPipeline(
        FlowMatchEulerDiscreteScheduler.from_config(model.scheduler.config), model.vae, model.clip,
        model.clip_tokenizer, model.t5, model.t5_tokenizer, model.network,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("name", ["dev", "schnell"])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_generation_is_flux_pipelines(folders, name, scale):
    model = load(folders, name)
    x = noise(model)
    theirs = pipeline_of(model)(
        list(PROMPTS), negative_prompt=["", ""], true_cfg_scale=scale, guidance_scale=3.5,
        num_inference_steps=4, latents=FluxPipeline._pack_latents(x, *x.shape),
        max_sequence_length=small.T5_TOKENS, height=16, width=16, output_type="pt",
    ).images  # fmt: skip
    ours = (sampled(model, scale) / 2 + 0.5).clamp(0, 1)
    assert float((ours - theirs).abs().max()) < 1e-5


def test_conditions_are_the_pipelines_embeddings(folders):
    model = load(folders, "dev")
    tokens, pooled, _ = pipeline_of(model).encode_prompt(
        list(PROMPTS), max_sequence_length=small.T5_TOKENS
    )
    ours = model.condition(PROMPTS, 2).tensors
    torch.testing.assert_close(ours["encoder_hidden_states"], tokens)
    torch.testing.assert_close(ours["pooled_projections"], pooled)
    with pytest.raises(BadInput, match=r"at most 6.*shorten it"):
        model.condition(("hat " * 7,), 1)


def test_patches_and_places_are_the_pipelines():
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(pack(x), FluxPipeline._pack_latents(x, *x.shape))
    torch.testing.assert_close(unpack(pack(x), 4), x)
    ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, torch.device("cpu"), torch.float32)
    torch.testing.assert_close(places(4), ids)


def test_the_shift_comes_from_the_number_of_image_tokens(folders):
    """At 1024 pixels of the real autoencoder there are 4,096 tokens and exp(mu) = exp(1.15)."""
    few, many = (load(folders, "dev", image_size=size).grid(4).sigma for size in (16, 256))
    even = torch.tensor([1, 0.75, 0.5, 0.25]).double()
    shifted = 1 / (1 + (1 / even - 1) / torch.tensor(1.15).double().exp())
    torch.testing.assert_close(many[:-1], shifted, rtol=1e-6, atol=1e-6)
    assert bool((few[1:-1] < many[1:-1]).all())
    for size in (16, 256):
        grid = load(folders, "schnell", image_size=size).grid(4)
        torch.testing.assert_close(grid.sigma[:-1], even)


def test_dev_is_told_its_guidance_and_schnell_is_not(folders):
    dev = load(folders, "dev")
    other = load(folders, "dev", embedded_guidance=1.0)
    assert float((sampled(dev) - sampled(other)).abs().max()) > 1e-4
    assert dev.fingerprint() != other.fingerprint()
    before = dev.evaluations.forward
    sampled(dev)
    assert dev.evaluations.forward - before == 2 * 4  # no second branch
    with pytest.raises(BadInput, match=r"has an input for guidance.*to a number"):
        load(folders, "dev", embedded_guidance=None)
    with pytest.raises(BadInput, match=r"has no input for guidance.*to null"):
        load(folders, "schnell", embedded_guidance=3.5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.03), ("float16", 0.002)])
def test_half_precision_moves_an_image_by_rounding_alone(folders, dtype, tolerance):
    """Mean absolute difference of images in [-1, 1], whose spread is 0.37."""
    half = load(folders, "dev", dtype=dtype)
    assert half.network.dtype == getattr(torch, dtype)
    assert float((sampled(half) - sampled(load(folders, "dev"))).abs().mean()) < tolerance


def test_a_size_that_patches_do_not_fill_is_refused(folders):
    assert load(folders, "dev", image_size=24).latent_shape == (16, 12, 12)
    for size in (18, 17):
        with pytest.raises(BadInput, match=f"multiple of 4 pixels, got {size}"):
            load(folders, "dev", image_size=size)


@pytest.mark.parametrize(
    ("config", "count"),
    [(small.FLUX_DEV, 11_901_408_320), (small.FLUX_SCHNELL, 11_891_178_560)],
)
def test_the_real_size(config, count):
    with torch.device("meta"):
        network = FluxTransformer2DModel(**config)
        x = torch.zeros(1, 16, 128, 128)
        out = network(
            pack(x), torch.zeros(1, 512, 4096), torch.zeros(1, 768), torch.zeros(1),
            places(64), torch.zeros(512, 3), torch.zeros(1) if config["guidance_embeds"] else None,
        ).sample  # fmt: skip
        assert unpack(out, 64).shape == x.shape
    assert sum(p.numel() for p in network.parameters()) == count


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(MissingWeights, match="Give a local folder"):
        Flux(path=str(tmp_path))
