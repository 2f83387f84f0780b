"""DDIM inversion: reconstruction, prompt swap, first-steps fix."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.sampling.loop import generate, guided, invert
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.inversion.ddim_inversion import DDIMInversion

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, **settings) -> DDIMInversion:
    editor = DDIMInversion(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def exact_batch(model, rows: int = 8) -> Batch:
    prompts = (SOURCE,) * rows
    return Batch(tuple(map(str, range(rows))), model.draw(prompts), prompts)


def gain(model, images, sources) -> torch.Tensor:
    """How far along mean(target) - mean(source) each image moved; 1 is the whole way."""
    way = model.mean(TARGET) - model.mean(SOURCE)
    return ((images - sources) * way).sum((-3, -2, -1)) / way.square().sum()


@pytest.mark.parametrize("convention", ["next", "matched"])
def test_reconstruction_error_falls_with_steps(gaussian, convention):
    batch, errors = exact_batch(gaussian), []
    for steps in (20, 50, 100):
        editor = attached(gaussian, steps=steps, convention=convention)
        found = editor.decode(editor.invert(batch))
        errors.append(float((found - batch.images).abs().mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]


def test_at_guidance_1_a_prompt_swap_is_the_exact_translation(gaussian):
    """Two Gaussians of one covariance: the flow maps x to x + mu_target - mu_source."""
    batch = exact_batch(gaussian)
    editor = attached(gaussian, guidance=1.0)
    edit = Edit("smile", target_prompts=(TARGET,) * 8)
    images = editor.edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    found = gain(gaussian, images, batch.images[:, None]).mean(0)
    assert found.tolist() == pytest.approx([0.0, 0.5, 1.0], abs=0.02)
    exact = batch.images + gaussian.mean(TARGET) - gaussian.mean(SOURCE)
    reconstruction = float((images[:, 0] - batch.images).abs().mean())
    assert float((images[:, 2] - exact).abs().mean()) < 1.5 * reconstruction


def test_guidance_goes_further(gaussian):
    batch = exact_batch(gaussian)
    edit = Edit("smile", target_prompts=(TARGET,) * 8)
    gains = [
        float(gain(gaussian, attached(gaussian, guidance=w).edit(batch, edit, torch.ones(1))[:, 0],
                   batch.images).mean())
        for w in (1.0, 2.0, 3.0)
    ]  # fmt: skip
    assert gains[0] < gains[1] - 0.1 < gains[2] - 0.2


def test_strength_moves_condition_and_guidance_together(latent):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(latent, guidance=5.0)
    targets = ("smile", "a face with hat")
    found = editor.edit(batch, Edit("x", target_prompts=targets), torch.tensor([0.25]))[:, 0]
    source, target = (latent.condition(p, 2) for p in (batch.prompts, targets))
    between = source.lerp(target, torch.full((2,), 0.25))
    terms = guided(between, latent.condition(None, 2), 2.0)
    x = editor.invert(batch).parts[Space.NOISE]
    expected = latent.decode(generate(latent, x, terms))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_first_steps_fix_is_drawn_per_image(gaussian):
    batch = exact_batch(gaussian, 3)
    editor = attached(gaussian, forward_steps=3)
    code = editor.invert(batch).parts[Space.NOISE]
    alone = Batch(batch.ids[1:2], batch.images[1:2], batch.prompts[1:2])
    torch.testing.assert_close(code[1:2], editor.invert(alone).parts[Space.NOISE])
    other = DDIMInversion(forward_steps=3)
    other.attach(gaussian, Streams(1), Cache(None))
    assert float((other.invert(batch).parts[Space.NOISE] - code).abs().mean()) > 1e-2


def test_the_inversion_has_a_prompt_and_a_guidance_of_its_own(latent):
    """Both hold for the reconstruction too, which strength 0 of the edit equals."""
    batch = toy.ToyData().batch("test", range(2))
    settings = {"inversion_prompt": "smile", "inversion_guidance": 2.0, "negative": "hat"}
    editor = attached(latent, **settings)
    code = editor.invert(batch)
    words, bad = (latent.condition((w,) * 2, 2) for w in ("smile", "hat"))
    terms = guided(words, bad, 2.0)
    x = invert(latent, latent.encode(batch.images), terms, convention="matched")
    assert torch.equal(code.parts[Space.NOISE], x) and code.prompts == ("smile",) * 2
    expected = latent.decode(generate(latent, x, terms))
    assert torch.equal(editor.decode(code), expected)
    edit = Edit("x", target_prompts=("glasses", "a face"))
    images = editor.edit(batch, edit, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(images[:, 0], expected, rtol=1e-3, atol=1e-3)
    target = latent.condition(edit.target_prompts, 2)
    whole = latent.decode(generate(latent, x, guided(target, bad, editor.guidance)))
    torch.testing.assert_close(images[:, 1], whole, rtol=1e-3, atol=1e-3)


def test_own_prompts_require_a_model_that_reads_text():
    plain, _ = DDIMInversion.required(["invert"], {"inversion_prompt": None})
    prompted, _ = DDIMInversion.required(["invert"], {"inversion_prompt": ""})
    assert plain == {Space.NOISE} and prompted == {Space.NOISE, Space.TEXT}
