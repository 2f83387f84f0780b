"""Runtime options of a model: the same figures up to float rounding; dtype within a tolerance."""

import cells
import pytest
import torch
from hydra import compose

from latentbench import plugins
from latentbench.cells.cell import run_cell
from latentbench.cells.plan import plan
from latentbench.cells.shelf import Shelf
from latentbench.config import Attention, Execution
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.execution import apply, use_attention
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.records import Record, Status
from latentbench.sampling.loop import Recorder, generate, guided

CPU = torch.device("cpu")


def latent_model(zoo, **options):
    model = LatentDiffusion(path=str(zoo / "latent"), steps=3, guidance=3.0)
    return apply(Execution(**options), model, CPU)


def images_of(model, **options):
    x = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    terms = guided(model.condition(["hat", "smile"], 2), model.condition(None, 2), 3.0)
    return model.decode(generate(model, x, terms, **options))


@pytest.fixture(scope="module")
def plain(zoo):
    return images_of(latent_model(zoo))


@pytest.mark.parametrize("option", ["channels_last", "vae_slicing", "offload"])
def test_an_option_changes_no_image_beyond_rounding(zoo, plain, option):
    model = latent_model(zoo, **{option: True})
    before = model.fingerprint()
    assert (images_of(model) - plain).abs().max() < 1e-5
    assert model.fingerprint() == before == latent_model(zoo).fingerprint()


def test_options_do_what_they_say(zoo):
    model = latent_model(zoo, channels_last=True, vae_slicing=True, offload=True)
    weight = model.network.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert model.vae.use_slicing
    assert all(hasattr(network, "_hf_hook") for network in model.networks())


@pytest.mark.parametrize("kernel", [Attention.math, Attention.flash])
def test_attention_kernels_agree(zoo, plain, kernel):
    use_attention(kernel)
    try:
        assert torch.backends.cuda.math_sdp_enabled() == (kernel is Attention.math)
        assert torch.backends.cuda.flash_sdp_enabled() == (kernel is Attention.flash)
        assert (images_of(latent_model(zoo)) - plain).abs().max() < 1e-5
    finally:
        use_attention(Attention.auto)


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_image_and_is_left_for_taps(zoo, plain):
    model = latent_model(zoo, compile=True)
    assert (images_of(model) - plain).abs().max() < 1e-4
    recorder = Recorder(bottleneck=True)
    tapped = images_of(model, interventions=[recorder])
    assert sorted(recorder.h) == [0, 1, 2]
    assert (tapped - plain).abs().max() < 1e-5


def test_an_option_without_its_part_is_refused(zoo):
    pixel = PixelDiffusion(path=str(zoo / "pixel"))
    with pytest.raises(BadInput, match="vae_slicing needs an autoencoder"):
        apply(Execution(vae_slicing=True), pixel, CPU)
    for option in ("offload", "channels_last", "compile"):
        with pytest.raises(BadInput, match=f"{option} needs"):
            apply(Execution(**{option: True}), toy.GaussianModel(), CPU)


def test_options_reach_the_model_and_are_no_part_of_a_cells_id(tmp_path):
    plain, _ = cells.run(tmp_path / "a")
    record, _ = cells.run(tmp_path / "b", "runtime.execution.attention=math")
    assert (record.id, record.scores) == (plain.id, plain.scores)
    failed, _ = cells.run(tmp_path / "c", "runtime.execution.vae_slicing=true")
    assert failed.id == plain.id
    assert "vae_slicing needs an autoencoder" in failed.reason


# ---------------------------------------------------------------- dtype, a setting of the model


def config_in(dtype, folder):
    """Return names and config of a cell on a shipped model."""
    names = {"benchmark": "reconstruction", "method": "ddim_inversion", "model": "faces_ddpm",
             "dataset": "faces"}  # fmt: skip
    choices = [f"{group}={name}" for group, name in names.items()]
    settings = ["benchmark.n=4", "method.steps=3", "metric=[psnr,ssim,identity_preservation]"]
    places = [f"results.dir={folder}", "results.cache=null", "tracker=none"]
    runtime = ["runtime.threads=1", "runtime.batch_size=4", "runtime.device=cpu"]
    with plugins.conf():
        own = [*choices, *settings, *places, *runtime, f"model.dtype={dtype}"]
        return names, compose("config", own)


@pytest.mark.slow
def test_scores_in_bfloat16_stay_near_those_in_float32(tmp_path):
    """Tolerances: PSNR 1 dB, SSIM .03, identity cosine .03; and they do differ."""
    planned = [config_in(dtype, tmp_path) for dtype in ("float32", "bfloat16")]
    full, half = (run_cell(config, names)[0].scores for names, config in planned)
    tolerances = {"psnr": 1.0, "ssim": 0.03, "id_zoo1": 0.03}
    assert full.keys() >= tolerances.keys()
    for name, tolerance in tolerances.items():
        assert 0 < abs(full[name].value - half[name].value) < tolerance


def test_dtype_is_part_of_a_cells_id(tmp_path):
    planned = [config_in(dtype, tmp_path) for dtype in ("float32", "bfloat16")]
    full, half = (
        plan(config, Shelf.of(config), Record("", Status.FAILED, names, 0, {})).id
        for names, config in planned
    )
    assert full != half
