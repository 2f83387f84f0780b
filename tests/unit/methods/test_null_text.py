"""Null-text inversion."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.model import Condition
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.inversion.null_text import NullText

SOURCE, TARGET = "a face with hat", "a face with smile"


class Told(toy.GaussianModel):
    """The exact denoiser, its mean image taken for a prompt's one token."""

    def condition(self, prompts, rows):
        mean = super().condition(prompts, rows).tensors["mean"]
        return Condition({"encoder_hidden_states": mean.flatten(1)[:, None]})

    def forward(self, x, timesteps, condition, taps=None):
        mean = condition.tensors["encoder_hidden_states"].reshape(-1, *self.latent_shape)
        return super().forward(x, timesteps, Condition({"mean": mean}), taps)


def attached(model, **settings) -> NullText:
    editor = NullText(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


@pytest.fixture
def model() -> Told:
    return Told(steps=10)


@pytest.fixture
def batch(model) -> Batch:
    return Batch(("0", "1", "2"), model.draw((SOURCE,) * 3), (SOURCE,) * 3)


def test_the_error_falls_with_iterations_below_that_of_guided_ddim(model, batch):
    errors = []
    for iterations in (0, 1, 3, 10):
        editor = attached(model, guidance=3.0, iterations=iterations)
        found = editor.decode(editor.invert(batch))
        errors.append(float((found - batch.images).abs().mean()))
    condition, empty = model.condition(batch.prompts, 3), model.condition(None, 3)
    x = ddim_trajectory(model, batch, Cache(None), condition=condition)[:, 0]
    ddim = generate(model, x, guided(condition, empty, 3.0))
    assert errors[0] == pytest.approx(float((ddim - batch.images).abs().mean()), rel=1e-4)
    assert errors[0] > errors[1] > errors[2] > 2 * errors[3]


def test_images_stop_on_their_own(model, batch):
    """Guidance changes nothing of the image without a prompt: its embedding stays."""
    plain = ("", SOURCE, SOURCE)
    asked = Batch(batch.ids, batch.images, plain)
    nulls = attached(model, tolerance=0.01).invert(asked).parts[Space.TEXT]
    empty = model.condition(None, 1).tensors["encoder_hidden_states"][0]
    moved = (nulls - empty).abs().amax((1, 2, 3))
    assert float(moved[0]) == 0 and float(moved[1:].min()) > 0
    alone = Batch(batch.ids[1:2], batch.images[1:2], plain[1:2])
    torch.testing.assert_close(
        nulls[1:2], attached(model, tolerance=0.01).invert(alone).parts[Space.TEXT]
    )


def test_no_evaluation_is_wasted(latent):
    """Per step and image the source once, the null once per iteration and once for the step."""
    batch = toy.ToyData().batch("test", range(2))
    before, back = latent.evaluations.forward, latent.evaluations.backward
    attached(latent, iterations=2, tolerance=0.0).invert(batch)
    assert latent.evaluations.forward - before == 2 * 5 * (1 + 1 + 3)  # 5 steps, inverted first
    assert latent.evaluations.backward - back == 2 * 5 * 2


@pytest.mark.slow
def test_the_embeddings_of_a_guidance_and_a_prompt_are_their_own(latent, tmp_path):
    """The published pipeline finds another prompt's embeddings in its cache."""
    batch = toy.ToyData().batch("test", range(2))
    other = Batch(batch.ids, batch.images, ("smile", "hat"))
    cache, found = Cache(tmp_path), []
    for images, w in ((batch, 3.0), (batch, 5.0), (other, 3.0)):
        editor = NullText(guidance=w, iterations=1)
        editor.attach(latent, Streams(0), cache)
        found.append(editor.invert(images).parts[Space.TEXT])
        fresh = attached(latent, guidance=w, iterations=1).invert(images).parts[Space.TEXT]
        assert torch.equal(found[-1], fresh)
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_strength_moves_the_prompt(model, batch):
    editor = attached(model, guidance=1.0)
    edit = Edit("smile", target_prompts=(TARGET,) * 3)
    images = editor.edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    way = model.mean(TARGET) - model.mean(SOURCE)
    gain = (((images - images[:, :1]) * way).sum((-3, -2, -1)) / way.square().sum()).mean(0)
    assert gain.tolist() == pytest.approx([0.0, 0.5, 1.0], abs=0.05)
