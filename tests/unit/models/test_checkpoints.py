"""Published architectures: shrunk by their size fields and run, full size counted on `meta`."""

import re
from pathlib import Path

import pytest
import real_configs as real
import torch
import transformers_toy as small
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    LDMPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DModel,
)
from omegaconf import OmegaConf
from safetensors.torch import load_file

from latentbench import weights
from latentbench.cells.parts import Part
from latentbench.errors import Incompatible, MissingWeights
from latentbench.models.dit import DiT
from latentbench.models.edm import EDMStableDiffusionXL
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.models.stable_diffusion_xl import StableDiffusionXL
from latentbench.models.unconditional_latent import UnconditionalLatentDiffusion
from latentbench.sampling.loop import Recorder, generate, guided

CONF = Path(__file__).resolve().parents[3] / "conf" / "model"
STEPS = 4
PROMPTS = ["a face with hat", "smile"]


@pytest.fixture(scope="module")
def ddpm(tmp_path_factory):
    return PixelDiffusion(path=real.save_ddpm(tmp_path_factory.mktemp("ddpm")), steps=STEPS)


@pytest.fixture(scope="module")
def ldm(tmp_path_factory):
    folder = real.save_ldm(tmp_path_factory.mktemp("ldm"))
    return UnconditionalLatentDiffusion(path=folder, steps=STEPS)


@pytest.fixture(scope="module", params=["sd15", "sd21"])
def sd(request, tmp_path_factory):
    folder = real.save_sd(tmp_path_factory.mktemp(request.param), request.param)
    return LatentDiffusion(path=folder, steps=STEPS, guidance=7.5)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    return StableDiffusionXL(path=real.save_sdxl(tmp_path_factory.mktemp("sdxl")), steps=STEPS)


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    folder = real.save_playground(tmp_path_factory.mktemp("playground"))
    return EDMStableDiffusionXL(path=folder, steps=STEPS)


def noise(model, rows=2):
    return torch.randn(rows, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def sampled(model, guidance, prompts=PROMPTS, **options):
    """Return the loop's images, [0, 1]."""
    terms = guided(model.condition(prompts, 2), model.condition(None, 2), guidance)
    return model.decode(generate(model, noise(model), terms, **options)) / 2 + 0.5


def piped(pipeline, model, guidance):
    """Return diffusers' images from the same noise, [0, 1]."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        PROMPTS, num_inference_steps=STEPS, guidance_scale=guidance, latents=noise(model),
        output_type="pt", height=model.image_size, width=model.image_size,
    ).images  # fmt: skip


# ---------------------------------------------------------------- the same image as diffusers


def test_ddpm_gives_the_image_of_a_ddim_loop(ddpm):
    x, scheduler = noise(ddpm), DDIMScheduler.from_pretrained(ddpm.folder, clip_sample=False)
    scheduler.set_timesteps(STEPS)
    unet = UNet2DModel.from_pretrained(ddpm.folder)
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    ours = sampled(ddpm, 1.0, None) * 2 - 1
    torch.testing.assert_close(ours, x, rtol=1e-3, atol=1e-4 * float(x.abs().max()))


def test_unconditional_ldm_gives_the_image_of_its_pipeline(ldm):
    pipeline = LDMPipeline(ldm.vae, ldm.network, ldm.scheduler)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        batch_size=2, num_inference_steps=STEPS, output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images  # fmt: skip
    ours = sampled(ldm, 1.0, None).clamp(0, 1).permute(0, 2, 3, 1)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
def test_stable_diffusion_gives_the_image_of_its_pipeline(sd, guidance):
    pipeline = StableDiffusionPipeline(
        sd.vae, sd.text_encoder, sd.tokenizer, sd.network, sd.scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    theirs = piped(pipeline, sd, guidance)
    torch.testing.assert_close(sampled(sd, guidance).clamp(0, 1), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_sdxl_gives_the_image_of_its_pipeline(sdxl, guidance):
    pipeline = StableDiffusionXLPipeline(
        sdxl.vae, sdxl.text_encoder, sdxl.text_encoder_2, sdxl.tokenizer, sdxl.tokenizer_2,
        sdxl.network, DDIMScheduler.from_config(sdxl.scheduler.config, clip_sample=False),
        add_watermarker=False,
    )  # fmt: skip
    theirs = piped(pipeline, sdxl, guidance)
    torch.testing.assert_close(sampled(sdxl, guidance).clamp(0, 1), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_edm_gives_the_image_of_the_pipeline_with_eulers_steps(playground, guidance):
    model = playground
    pipeline = StableDiffusionXLPipeline(
        model.vae, model.text_encoder, model.text_encoder_2, model.tokenizer, model.tokenizer_2,
        model.network, EDMEulerScheduler.from_config(model.scheduler.config),
        add_watermarker=False,
    )  # fmt: skip
    theirs = piped(pipeline, model, guidance)
    ours = sampled(model, guidance).clamp(0, 1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_edms_levels_have_unit_variance_and_end_clean(playground):
    grid = playground.grid(10)
    torch.testing.assert_close(grid.alpha**2 + grid.sigma**2, torch.ones(11).double())
    assert (grid.alpha[-1], grid.sigma[-1]) == (1, 0)
    assert float(grid.sigma[0] / grid.alpha[0]) == pytest.approx(80)


def test_edms_eps_is_the_distance_to_its_denoised_image(playground):
    x, timesteps = noise(playground), torch.tensor([80.0, 0.5])
    sigma = timesteps.reshape(-1, 1, 1, 1)
    condition = playground.condition(PROMPTS, 2)
    eps = playground.forward(x / (1 + sigma**2).sqrt(), timesteps, condition)
    scaled = EDMEulerScheduler.from_config(playground.scheduler.config)
    network_in = torch.cat([scaled.precondition_inputs(x[k : k + 1], sigma[k]) for k in range(2)])
    out = playground.call(network_in, timesteps.log() / 4, condition)
    denoised = scaled.precondition_outputs(x, out, sigma)
    torch.testing.assert_close(eps, (x - denoised) / sigma, rtol=1e-3, atol=1e-3)
    clean = playground.forward(x, torch.zeros(2), condition)  # a "matched" inversion starts here
    assert clean.isfinite().all()


# ---------------------------------------------------------------- spaces


@pytest.mark.parametrize("name", ["ddpm", "ldm", "sdxl", "playground"])
def test_taps_reach_the_network_and_change_nothing_by_themselves(name, request):
    model = request.getfixturevalue(name)
    prompts = PROMPTS if name in ("sdxl", "playground") else None
    recorder = Recorder(bottleneck=True)
    tapped = sampled(model, 1.0, prompts, interventions=[recorder])
    torch.testing.assert_close(tapped, sampled(model, 1.0, prompts), rtol=0, atol=1e-5)
    assert sorted(recorder.h) == list(range(STEPS))
    assert model.attention_layers()


def test_latents_are_those_before_quantisation(ldm):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z, raw = ldm.encode(images), ldm.vae.encode(images).latents
    assert z.shape == (2, *ldm.latent_shape)
    torch.testing.assert_close(z, raw * ldm.vae.config.scaling_factor)
    quantised = ldm.vae.decode(ldm.vae.quantize(raw)[0], force_not_quantize=True).sample
    torch.testing.assert_close(ldm.decode(z), quantised, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["sdxl", "playground"])
def test_decode_undoes_the_scaling_of_encode(name, request):
    model = request.getfixturevalue(name)
    images = torch.zeros(1, 3, model.image_size, model.image_size)
    raw = model.vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(
        model.decode(model.encode(images)), model.vae.decode(raw).sample, rtol=1e-3, atol=1e-4
    )


def test_a_checkpoint_older_than_its_scaling_entry_is_told_the_scale(ldm):
    """The published LDM was trained on latents as they are; diffusers' default is 0.18215."""
    config = OmegaConf.load(CONF / "ldm_celebahq.yaml")
    told = UnconditionalLatentDiffusion(path=ldm.path, scaling_factor=config.scaling_factor)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.testing.assert_close(told.encode(images), told.vae.encode(images).latents)
    torch.testing.assert_close(told.decode(told.encode(images)), ldm.decode(ldm.encode(images)))
    assert told.fingerprint() != ldm.fingerprint()


def test_gradients_pass_through_the_quantiser(ldm):
    z = noise(ldm).requires_grad_()
    with torch.enable_grad():
        ldm.decode(z).sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0


def test_sdxls_condition_holds_pooled_text_and_sizes(sdxl):
    tensors = sdxl.condition(PROMPTS, 2).tensors
    assert {k: tuple(v.shape) for k, v in tensors.items()} == {
        "encoder_hidden_states": (2, 12, 32 + 48), "text_embeds": (2, 40), "time_ids": (2, 6)
    }  # fmt: skip
    side = sdxl.image_size
    assert tensors["time_ids"].tolist() == [[side, side, 0, 0, side, side]] * 2
    empty = sdxl.condition(None, 1).tensors
    assert not empty["encoder_hidden_states"].any() and not empty["text_embeds"].any()
    assert sdxl.condition([""], 1).tensors["encoder_hidden_states"].any()
    with pytest.raises(Incompatible, match="two text encoders"):
        sdxl.embed_words("a <new>", {"<new>": torch.zeros(32)})


def test_sdxl_in_half_precision_keeps_its_autoencoder_in_float32(sdxl):
    half = StableDiffusionXL(path=sdxl.path, steps=STEPS, dtype="float16")
    assert half.vae.dtype == torch.float32
    assert half.network.dtype == half.text_encoder_2.dtype == torch.float16
    assert half.decode(noise(half)).dtype == torch.float32


def test_tiling_is_a_setting_that_changes_a_models_fingerprint(sdxl):
    tiled = StableDiffusionXL(path=sdxl.path, steps=STEPS, vae_tiling=True)
    assert tiled.vae.use_tiling
    assert tiled.fingerprint() != sdxl.fingerprint()


# ---------------------------------------------------------------- pickled weights


def pickle_weights(folder: Path) -> None:
    """Turn a checkpoint's safetensors files into what older ones hold."""
    for file in folder.rglob("*.safetensors"):
        torch.save(load_file(file), file.with_suffix(".bin"))
        file.unlink()


def save_old_dit(folder: Path) -> str:
    """Write a DiT whose config names the class of its time, as the published ones do."""
    path = small.save_dit(folder, small.DIT_XL_256, {0: "tench"})
    config = folder / "transformer" / "config.json"
    text = config.read_text().replace("DiTTransformer2DModel", "Transformer2DModel")
    config.write_text(text)
    return path


@pytest.mark.parametrize(
    ("save", "cls"),
    [
        (real.save_ddpm, PixelDiffusion),
        (real.save_ldm, UnconditionalLatentDiffusion),
        (save_old_dit, DiT),
    ],
)
def test_pickled_weights_are_refused_until_converted_as_the_docs_say(save, cls, tmp_path):
    before = cls(path=save(tmp_path)).fingerprint()
    pickle_weights(tmp_path)
    with pytest.raises(MissingWeights, match=r"docs/zoo.md says how to make them of .bin"):
        cls(path=str(tmp_path))
    docs = (CONF.parents[1] / "docs" / "zoo.md").read_text()
    recipe = docs.split("```python\n")[1].split("```")[0]
    exec(recipe.replace("/data/model", str(tmp_path)))
    assert cls(path=str(tmp_path)).fingerprint() == before


# ---------------------------------------------------------------- full size


@pytest.mark.parametrize(
    "name", ["DDPM_UNET", "LDM_UNET", "LDM_VQ", "SD15_UNET", "SD21_UNET", "SDXL_UNET", "SD_VAE"]
)
def test_full_size_has_the_published_number_of_parameters(name):
    network = getattr(real, name)
    with torch.device("meta"):
        whole = network.cls(**network.full)
    assert sum(p.numel() for p in whole.parameters()) == network.parameters


@pytest.mark.parametrize("name", real.TEXTS)
def test_full_size_text_encoders_have_the_published_number_of_parameters(name):
    cls, config, parameters = real.TEXTS[name]
    with torch.device("meta"):
        assert sum(p.numel() for p in cls(config).parameters()) == parameters


@pytest.mark.parametrize("name", ["DDPM_UNET", "LDM_UNET", "SD15_UNET", "SD21_UNET", "SDXL_UNET"])
def test_full_size_gives_the_right_shape(name):
    network = getattr(real, name)
    with torch.device("meta"):
        whole = network.cls(**network.full)
        side = whole.config.sample_size
        x = torch.empty(1, whole.config.in_channels, side, side)
        extra = {}
        if network.cls is not UNet2DModel:
            extra["encoder_hidden_states"] = torch.empty(1, 77, whole.config.cross_attention_dim)
        if name == "SDXL_UNET":
            sizes = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
            extra["added_cond_kwargs"] = sizes
        assert whole(x, torch.empty(1), **extra).sample.shape == x.shape


# ---------------------------------------------------------------- yamls


def of_the_hub() -> list[str]:
    """Return the yamls of models that are not embedded."""
    paths = {p.stem: OmegaConf.load(p).get("path", "") for p in sorted(CONF.glob("*.yaml"))}
    return [name for name, path in paths.items() if path not in weights.names()]


@pytest.mark.parametrize("name", of_the_hub())
def test_its_yaml_states_size_licence_and_how_to_fetch_it(name):
    text = (CONF / f"{name}.yaml").read_text()
    facts = " ".join(line.strip("# ") for line in text.splitlines() if line.startswith("#"))
    for pattern in (r"\d+ px", r"[\d.]+[MB] ", r"[\d.]+ GB", r"Licence: ", r"Gated: (no|yes)"):
        assert re.search(pattern, facts), f"{name}: no {pattern}"
    assert f"hf download {OmegaConf.load(CONF / f'{name}.yaml').path}" in facts


@pytest.mark.parametrize("name", of_the_hub())
def test_without_weights_or_network_it_says_what_to_run(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = OmegaConf.load(CONF / f"{name}.yaml")
    with pytest.raises(MissingWeights, match=f"hf download {config.path}"):
        Part.of(config).build()
