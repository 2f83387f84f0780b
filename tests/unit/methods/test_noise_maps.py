"""Noise maps: exact whatever the model, the skip, the sampler and the chunking."""

from dataclasses import replace

import pytest
import torch

from latentbench.annotations import fits
from latentbench.cache import Cache
from latentbench.cells.constructors import of_class
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
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


@pytest.mark.parametrize("cls", EDITORS)
def test_skip_is_a_count_or_a_share(pixel, cls):
    batch = toy.ToyData().batch("test", range(2))
    count, share = (attached(cls(skip=skip), pixel).invert(batch) for skip in (2, 0.4))
    assert count.start == share.start == 2
    assert torch.equal(count.parts[Space.NOISE_MAPS], share.parts[Space.NOISE_MAPS])
    with pytest.raises(BadInput, match="leaves out 5 of 5 sampling steps"):
        attached(cls(skip=5), pixel).invert(batch)


def test_a_share_of_the_steps_loses_none_to_rounding(gaussian):
    """0.58 x 50 is 28.999999999999996 in floats."""
    batch = Batch(("0",), gaussian.draw(("",)))
    assert attached(EditFriendlyDDPM(skip=0.58, steps=50), gaussian).invert(batch).start == 29


@pytest.mark.parametrize("cls", EDITORS)
def test_eta_may_differ_between_steps(pixel, cls):
    batch = toy.ToyData().batch("test", range(2))
    etas = [1.0, 0.5, 0.2, 0.5, 1.0]
    one, same = (attached(cls(eta=e, skip=0), pixel).invert(batch) for e in (0.3, [0.3] * 5))
    assert torch.equal(one.parts[Space.NOISE_MAPS], same.parts[Space.NOISE_MAPS])
    editor = attached(cls(eta=etas, skip=0), pixel)
    code = editor.invert(batch)
    torch.testing.assert_close(editor.decode(code), batch.images, rtol=1e-4, atol=1e-4)
    assert not torch.equal(code.parts[Space.NOISE_MAPS], one.parts[Space.NOISE_MAPS])
    with pytest.raises(BadInput, match="2 values for 5 sampling steps"):
        attached(cls(eta=[1.0, 1.0]), pixel).invert(batch)


@pytest.mark.parametrize("cls", EDITORS)
def test_what_eta_and_skip_may_be(cls):
    takes = of_class(cls)
    eta, skip = (takes[name].annotation for name in ("eta", "skip"))
    assert all(fits(v, eta) for v in (1, 0.1, [1.0, 0.2])) and all(fits(v, skip) for v in (12, 0.3))
    assert not any(fits(v, eta) for v in (0.0, [1.0, 0.0], 1.5))
    assert not any(fits(v, skip) for v in (-1, 1.0, -0.1))


@pytest.mark.parametrize("cls", EDITORS)
def test_a_code_is_made_once_for_an_image_a_seed_and_the_settings_that_enter(latent, cls, tmp_path):
    batch = toy.ToyData().batch("test", range(2))

    def evaluated(seed: int = 0, of: Batch = batch, **settings) -> int:
        editor, before = cls(**settings), latent.evaluations.forward
        editor.attach(latent, Streams(seed), Cache(tmp_path))
        codes.append(editor.invert(of).parts[Space.NOISE_MAPS])
        return latent.evaluations.forward - before

    codes: list[torch.Tensor] = []
    assert evaluated() == 4 * 2
    assert evaluated() == evaluated(guidance_target=7.0, max_strength=0.5) == 0
    assert torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])
    others = (
        {"seed": 1}, {"skip": 0}, {"eta": 0.7}, {"steps": 4}, {"guidance_source": 2.0},
        {"of": replace(batch, ids=("x", "y"))}, {"of": replace(batch, prompts=("a", "a hat"))},
        {"of": replace(batch, images=batch.images.flip(0))},
    )  # fmt: skip
    for other in others:
        assert evaluated(**other) > 0, other
        assert evaluated(**other) == 0, other


@pytest.mark.parametrize("cls", EDITORS)
def test_no_branch_is_evaluated_that_does_not_enter(latent, cls, tmp_path):
    """At strength 0 the guidance is 1, so the null branch has no weight."""
    batch = toy.ToyData().batch("test", range(2))
    editor, steps = cls(), 4
    editor.attach(latent, Streams(0), Cache(tmp_path))
    editor.invert(batch)
    edit, before = Edit("x", target_prompts=("a", "a hat")), latent.evaluations.forward
    some = editor.edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    assert latent.evaluations.forward - before == 2 * steps * (1 + 2 + 2)
    alone = editor.edit(batch, edit, torch.tensor([0.5]))
    torch.testing.assert_close(alone[:, 0], some[:, 1], rtol=1e-4, atol=1e-4)
