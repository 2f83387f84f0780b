"""Negative-prompt inversion."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.inversion.negative_prompt import NegativePrompt

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, **settings) -> NegativePrompt:
    editor = NegativePrompt(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


@pytest.fixture
def batch(gaussian) -> Batch:
    return Batch(("0", "1", "2"), gaussian.draw((SOURCE,) * 3), (SOURCE,) * 3)


def test_reconstruction_is_that_without_guidance_whatever_the_scale(gaussian, batch):
    one, large = (attached(gaussian, steps=20, guidance=w) for w in (1.0, 7.5))
    assert torch.equal(large.decode(large.invert(batch)), one.decode(one.invert(batch)))


def test_guidance_acts_on_the_difference_of_the_prompts(gaussian, batch):
    """Two Gaussians of one covariance: the gain is w, and the strength's share of it."""
    edit = Edit("smile", target_prompts=(TARGET,) * 3)
    editor = attached(gaussian, steps=20, guidance=2.0)
    images = editor.edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    way = gaussian.mean(TARGET) - gaussian.mean(SOURCE)
    moved = images - images[:, :1]
    gain = ((moved * way).sum((-3, -2, -1)) / way.square().sum()).mean(0)
    assert gain.tolist() == pytest.approx([0.0, 1.0, 2.0], abs=0.05)


def test_the_source_prompt_takes_the_null_branch(latent):
    batch = toy.ToyData().batch("test", range(2))
    edit = Edit("x", target_prompts=("smile", "a face with hat"))
    editor = attached(latent, guidance=2.0)
    found = editor.edit(batch, edit, torch.ones(1))[:, 0]
    source, target = (latent.condition(p, 2) for p in (batch.prompts, edit.target_prompts))
    x = editor.invert(batch).parts[Space.NOISE]
    expected = latent.decode(generate(latent, x, guided(target, source, 2.0)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_empty_prompts_share_ends_in_ordinary_guidance(latent):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(latent, guidance=2.0, empty_share=1.0)
    code = editor.invert(batch)
    terms = guided(latent.condition(batch.prompts, 2), latent.condition(None, 2), 2.0)
    expected = latent.decode(generate(latent, code.parts[Space.NOISE], terms))
    torch.testing.assert_close(editor.decode(code), expected, rtol=1e-3, atol=1e-4)
    half = attached(latent, guidance=2.0, empty_share=0.5)
    assert not torch.equal(half.decode(code), editor.decode(code))
