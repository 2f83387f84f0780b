"""Prompt-to-Prompt in the edit-friendly noise space."""

import pytest
import torch
import transformers_toy as small

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.edit_friendly_prompt_to_prompt import EditFriendlyPromptToPrompt
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM

SOURCES, TARGETS = ("a face with hat", "a face"), ("a face with smile", "a face with glasses")
EDIT = Edit("x", target_prompts=TARGETS)
BOTH = torch.tensor([0.0, 1.0])


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    path = small.save_sd3(tmp_path_factory.mktemp("sd3"), small.SD35_MEDIUM)
    return TransformerFlow(path=path, steps=4, guidance=3.0)


def attached(model, cls=EditFriendlyPromptToPrompt, cache=None, **settings):
    editor = cls(**{"steps": 4, "skip": 1} | settings)
    editor.attach(model, Streams(0), Cache(cache))
    return editor


def batch_of(model) -> Batch:
    return Batch(("0", "1"), toy.ToyData(model.image_size).batch("test", [0, 1]).images, SOURCES)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["latent", "sd3"])
def test_strength_0_is_exact_at_any_guidance_and_1_is_another_image(name, request):
    model = request.getfixturevalue(name)
    batch = batch_of(model)
    found = attached(model, guidance_source=2.0).edit(batch, EDIT, BOTH)
    close(found[:, 0], model.decode(model.encode(batch.images)))
    assert float((found[:, 1] - found[:, 0]).abs().max()) > 1e-3


def test_equal_prompts_at_the_source_s_guidance_give_the_image(latent):
    """Whatever the shares are: the maps that are taken over are the target's own."""
    batch, same = batch_of(latent), Edit("x", target_prompts=SOURCES)
    settings = {"guidance_source": 2.0, "guidance_target": 2.0, "self_replace": 1.0}
    found = attached(latent, **settings).edit(batch, same, torch.ones(1))
    close(found[:, 0], latent.decode(latent.encode(batch.images)))


def test_without_an_exchange_it_is_the_plain_edit(latent, monkeypatch):
    batch = batch_of(latent)
    plain = attached(latent, EditFriendlyDDPM).edit(batch, EDIT, BOTH)
    assert float((attached(latent).edit(batch, EDIT, BOTH) - plain).abs().max()) > 1e-3
    maps = "methods.editing.prompt_to_prompt.ControlledMaps.active"
    monkeypatch.setattr(maps, lambda *_: False)
    close(attached(latent).edit(batch, EDIT, BOTH), plain)


def test_shares_are_of_the_steps_that_are_made():
    editor = EditFriendlyPromptToPrompt(skip=2, cross_replace=0.5, self_replace=0.25)
    assert editor._steps(10) == (6, 4) and editor.coupled_steps(10) == 4
    data = toy.ToyData()
    with pytest.raises(BadInput, match="takes nothing from its source"):
        EditFriendlyPromptToPrompt(skip=8, cross_replace=0.2, self_replace=0.2).check(data, 10, [1])
    with pytest.raises(BadInput, match="leaves out 10 of 10"):
        EditFriendlyPromptToPrompt(skip=10).check(data, 10, [1])


def test_evaluations(latent, tmp_path):
    """The source is evaluated while maps are exchanged, once for all strengths."""
    b, s, made, heard = 2, 2, 3, 1
    editor = attached(latent, cache=tmp_path, cross_replace=0.4, self_replace=0.0)
    batch = batch_of(latent)
    editor.invert(batch)
    before = latent.evaluations.forward
    editor.edit(batch, EDIT, torch.tensor([0.5, 1.0]))
    assert latent.evaluations.forward - before == b * heard + 2 * b * s * made
