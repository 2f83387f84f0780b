"""Blended latent diffusion: a mask at every level, and a decoder that is tuned."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from latentbench.cache import Cache
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.blending import latent_mask
from latentbench.sampling.loop import Step
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.blended_latent_diffusion import Blend, BlendedLatentDiffusion

STRENGTHS = torch.tensor([0.0, 1.0])


def left_half(rows: int, size: int) -> Tensor:
    mask = torch.zeros(rows, size, size)
    mask[..., : size // 2] = 1
    return mask


def asked(model, rows: int) -> tuple[Batch, Edit, Tensor]:
    """Images of any model's size, an edit of their left half, and its masks."""
    size = model.image_size
    batch, masks = toy.ToyData(size).batch("test", range(rows)), left_half(rows, size)
    return batch, Edit("hat", target_prompts=("a face with hat",) * rows, masks=masks), masks


def attached(model, **settings: Any) -> BlendedLatentDiffusion:
    editor = BlendedLatentDiffusion(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def test_a_pixel_model_keeps_the_background_bit_by_bit(gaussian):
    batch, edit, masks = asked(gaussian, 3)
    images = attached(gaussian).edit(batch, edit, STRENGTHS)
    assert torch.equal(images[:, 0], batch.images)
    outside = masks[:, None, None].expand_as(images) == 0
    assert torch.equal(images[outside], batch.images[:, None].expand_as(images)[outside])
    assert float((images[:, 1] - images[:, 0])[~outside[:, 0]].abs().mean()) > 0.05


def test_inside_the_mask_the_prompt_is_obeyed(gaussian):
    batch, edit, masks = asked(gaussian, 8)
    way = gaussian.mean("hat") * masks[0]
    found = []
    for prompt in ("a face", "a face with hat"):
        asks = replace(edit, target_prompts=(prompt,) * 8)
        images = attached(gaussian, guidance=1.0).edit(batch, asks, STRENGTHS)
        found.append(float((images[:, 1] * way).sum((-3, -2, -1)).mean() / way.square().sum()))
    assert found[1] - found[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_a_tuned_decoder_brings_the_background_back(latent):
    batch, edit, masks = asked(latent, 2)
    z_init = latent.encode(batch.images)
    z = attached(latent)._blended(z_init, batch, edit, masks, 0)
    outside = latent_mask(masks, z).expand_as(z) == 0
    assert torch.equal(z[outside], z_init[outside])
    plain, tuned = (
        attached(latent, background=how, iterations=20, learning_rate=1e-2).edit(
            batch, edit, STRENGTHS
        )[:, 1]
        for how in ("none", "decoder")
    )
    outside = (1 - masks)[:, None]
    errors = [float(((x - batch.images) * outside).square().mean()) for x in (plain, tuned)]
    assert errors[1] < 0.5 * errors[0], errors


def test_the_decoder_is_given_back_and_no_image_sees_another(latent):
    batch, edit, masks = asked(latent, 2)
    weights, state = latent.fingerprint(), torch.get_rng_state()
    editor = attached(latent, background="decoder", iterations=2)
    both = editor.edit(batch, edit, STRENGTHS)
    assert latent.fingerprint() == weights and torch.equal(torch.get_rng_state(), state)
    first = Batch(batch.ids[:1], batch.images[:1])
    alone = Edit("hat", target_prompts=("a face with hat",), masks=masks[:1])
    torch.testing.assert_close(editor.edit(first, alone, STRENGTHS), both[:1], rtol=1e-3, atol=1e-4)


def test_pasted_pixels_are_the_source(latent):
    batch, edit, masks = asked(latent, 2)
    found = attached(latent, background="paste").edit(batch, edit, STRENGTHS[1:])
    outside = masks[:, None, None].expand_as(found) == 0
    assert torch.equal(found[outside], batch.images[:, None].expand_as(found)[outside])


@pytest.mark.parametrize("background", ["paste", "decoder"])
def test_strength_0_is_what_a_lossy_autoencoder_makes_of_the_image(latent, background):
    """As the runner checks it: neither pixels nor the decoder are the source's then."""
    batch, edit, masks = asked(latent, 1)
    expected = latent.decode(latent.encode(batch.images))
    assert (
        float((expected - batch.images).abs()[masks[:, None].expand_as(expected) == 0].mean()) > 0.1
    )
    editor = attached(latent, background=background, iterations=2, learning_rate=0.1, steps=2)
    found = CheckedEditor(editor).edit(batch, edit, STRENGTHS)
    assert torch.equal(found[:, 0], expected)


def test_masks_shrink_over_four_parts_of_the_steps(latent):
    """Each part has its own mask, from the first step made on; at the end it is the exact one."""
    z, masks = torch.zeros(1, 1, 1, 4), torch.tril(torch.ones(4, 4)).flip(0)
    blend = Blend(z, torch.ones(1, 11, 1, 1, 4), [m[None, None, None] for m in masks], 2)
    grid, seen = latent.grid(10), []
    for i in range(2, 10):
        step = Step(i, i, i + 1, 10, 0, (), grid, lambda x, level: (x, x))
        seen.append(int((blend.before_step(step, torch.full_like(z, 9.0)) == 9).sum()))
    assert seen == [4, 4, 3, 3, 2, 2, 1, 1]
    last = blend.after_step(step, torch.full_like(z, 9.0))
    assert last.flatten().tolist() == [9, 0, 0, 0]


def test_an_edit_without_masks_is_refused(latent):
    batch, edit, _ = asked(latent, 1)
    with pytest.raises(BadInput, match=r"edit 'hat' has no masks.*give_masks=true"):
        attached(latent).edit(batch, replace(edit, masks=None), STRENGTHS)
