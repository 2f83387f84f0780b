"""Noise maps: exact whatever the model, the skip, the sampler and the chunking."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.model import Condition
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Edit, Space
from methods.inversion import noise_maps
from methods.inversion.cycle_diffusion import CycleDiffusion
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM

EDITORS = [EditFriendlyDDPM, CycleDiffusion]


def attached(editor, model):
    editor.attach(model, Streams(0), Cache(None))
    return editor


@pytest.mark.parametrize("cls", EDITORS)
@pytest.mark.parametrize("skip", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("name", ["pixel", "pixel_v", "latent"])
def test_reconstruction_is_exact_on_untrained_models(zoo, latent, cls, skip, name):
    model = latent if name == "latent" else PixelDiffusion(path=str(zoo / name), steps=10)
    batch = toy.ToyData().batch("test", range(2))
    for eta in (0.1, 1.0):
        editor = attached(cls(skip=skip, eta=eta, guidance_source=1.0), model)
        code = editor.invert(batch)
        assert code.start == int(skip * model.steps)
        assert code.parts[Space.NOISE_MAPS].shape[1] == model.steps - code.start
        ceiling = model.decode(model.encode(batch.images))
        torch.testing.assert_close(editor.decode(code), ceiling, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", EDITORS)
def test_reconstruction_is_exact_under_source_guidance(latent, cls):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(cls(guidance_source=3.5), latent)
    ceiling = latent.decode(latent.encode(batch.images))
    found = editor.decode(editor.invert(batch))
    torch.testing.assert_close(found, ceiling, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cls", EDITORS)
def test_maps_are_the_noise_that_the_sampler_would_need(pixel, cls):
    """Feeding x and the maps to the stochastic loop itself, without the last residual."""
    batch = toy.ToyData().batch("test", range(2))
    code = attached(cls(skip=0.0), pixel).invert(batch)
    maps, terms = code.parts[Space.NOISE_MAPS], guided(Condition(), Condition(), 1.0)
    eta = cls().eta
    x = generate(pixel, code.parts[Space.NOISE], terms, eta=eta, noise=lambda i: maps[:, i])
    torch.testing.assert_close(x + maps[:, -1], batch.images, rtol=1e-4, atol=1e-4)
    assert float((x - batch.images).abs().max()) > 1e-3  # the residual is not nothing


def test_chunks_of_timesteps_change_nothing(latent, monkeypatch):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(EditFriendlyDDPM(guidance_source=2.0, skip=0.0), latent)
    whole = editor.invert(batch).parts[Space.NOISE_MAPS]
    monkeypatch.setattr(noise_maps, "ROWS", 4)
    chunks = editor.invert(batch).parts[Space.NOISE_MAPS]
    torch.testing.assert_close(chunks, whole, rtol=1e-3, atol=1e-3)


def test_inversion_evaluates_each_kept_timestep_once(latent):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(EditFriendlyDDPM(skip=0.4), latent)
    before = latent.evaluations.forward
    editor.invert(batch)
    assert latent.evaluations.forward - before == 2 * 3  # 5 steps, 2 of them skipped


@pytest.mark.parametrize("cls", EDITORS)
def test_strengths_are_read_row_by_row(latent, cls):
    """Images x strengths share a batch: each must get its own prompt, code and guidance."""
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(cls(), latent)
    edit = Edit("hat+", target_prompts=("a face with hat", "smile"))
    strengths = torch.tensor([0.5, 1.0, 0.0])
    together = editor.edit(batch, edit, strengths)
    for k, strength in enumerate(strengths):
        alone = editor.edit(batch, edit, strength[None])[:, 0]
        torch.testing.assert_close(together[:, k], alone, rtol=1e-3, atol=1e-3)
