"""SDEdit."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible
from latentbench.sampling.loop import generate, guided, noise_to_level
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.sdedit import SDEdit, SDEditTranslation

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, seed: int = 0, **settings) -> SDEdit:
    editor = SDEdit(**settings)
    editor.attach(model, Streams(seed), Cache(None))
    return editor


def test_strength_is_the_share_of_the_steps(latent):
    batch = toy.ToyData().batch("test", range(2))
    targets = ("smile", "a face with hat")
    found = attached(latent).edit(batch, Edit("x", target_prompts=targets), torch.tensor([0.4]))
    grid = latent.grid()
    n = Streams(0).normal("sdedit", batch.ids, (1, *latent.latent_shape))[:, 0]
    x = noise_to_level(grid, latent.encode(batch.images), n, 3)  # 2 of 5 steps from the end
    terms = guided(latent.condition(targets, 2), latent.condition(None, 2), 3.0)
    expected = latent.decode(generate(latent, x, terms, start=3))
    assert torch.equal(found[:, 0], expected)


def test_all_shares_of_50_steps_are_met(gaussian):
    """floor(0.58 x 50) is 28 in floats, and must be 29."""
    batch = Batch(("0",), gaussian.draw((SOURCE,)), (SOURCE,))
    edit = Edit("x", target_prompts=(TARGET,))
    editor = attached(gaussian, guidance=1.0)
    for k in (1, 29, 50):
        before = gaussian.evaluations.forward
        editor.edit(batch, edit, torch.tensor([k / 50]))
        assert gaussian.evaluations.forward - before == k


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_background_error_and_effect_rise_with_strength(gaussian, eta):
    rows = 16
    batch = Batch(tuple(map(str, range(rows))), gaussian.draw((SOURCE,) * rows))
    edit = Edit("x", target_prompts=(TARGET,) * rows)
    images = attached(gaussian, guidance=1.0, eta=eta).edit(
        batch, edit, torch.tensor([0.0, 0.2, 0.5, 0.8])
    )
    way = gaussian.mean(TARGET) - gaussian.mean(SOURCE)
    moved = images - batch.images[:, None]
    gain = ((moved * way).sum((-3, -2, -1)) / way.square().sum()).mean(0)
    assert float(gain[0]) == 0 and bool((gain.diff() > 0).all())
    rest = (moved - gain[None, :, None, None, None] * way).abs().mean((0, 2, 3, 4))
    assert bool((rest.diff() > 0).all())


def test_seeds_differ(latent):
    batch = toy.ToyData().batch("test", range(1))
    edit, half = Edit("x", target_prompts=("smile",)), torch.tensor([0.0, 0.6])
    one, two = (attached(latent, seed).edit(batch, edit, half) for seed in (0, 1))
    assert torch.equal(one[:, 0], two[:, 0])
    assert float((one[:, 1] - two[:, 1]).abs().mean()) > 1e-2


def test_a_strength_below_one_step_is_refused(latent):
    batch = toy.ToyData().batch("test", range(1))
    edit = Edit("x", target_prompts=("smile",))
    with pytest.raises(BadInput, match=r"0 of 5 sampling steps, strengths start at 0\.2"):
        attached(latent).edit(batch, edit, torch.tensor([0.1]))


def test_outside_the_mask_the_source_is_kept(latent):
    batch = toy.ToyData().batch("test", range(2))
    mask = torch.zeros(2, *batch.images.shape[-2:])
    mask[:, :, : mask.shape[-1] // 2] = 1
    edit = Edit("x", target_prompts=("smile",) * 2, masks=mask)
    x0, editor = latent.encode(batch.images), attached(latent, repeats=2)
    z0 = editor._repeat(x0, batch, edit, 1)
    half = x0.shape[-1] // 2
    torch.testing.assert_close(z0[..., half:], x0[..., half:], rtol=0, atol=1e-6)
    assert float((z0 - x0)[..., :half].abs().mean()) > 1e-2


def test_a_latent_cell_may_change_as_soon_as_one_of_its_pixels_may(latent):
    batch = toy.ToyData().batch("test", range(1))
    mask = torch.zeros(1, *batch.images.shape[-2:])
    mask[0, 0, 0] = 1
    x0 = latent.encode(batch.images)
    edit = Edit("x", target_prompts=("smile",), masks=mask)
    moved = (attached(latent)._repeat(x0, batch, edit, 1) - x0).abs().amax(1)[0] > 1e-4
    assert moved.nonzero().tolist() == [[0, 0]]


def test_repeats_start_from_the_last_result_with_fresh_noise(latent):
    batch = toy.ToyData().batch("test", range(1))
    edit, strengths = Edit("x", target_prompts=("smile",)), torch.tensor([0.0, 0.4])
    once, twice = (attached(latent, repeats=k).edit(batch, edit, strengths) for k in (1, 2))
    assert torch.equal(once[:, 0], twice[:, 0])
    grid = latent.grid()
    shape = (1, *latent.latent_shape)
    n1, n2 = (Streams(0).normal(s, batch.ids, shape)[:, 0] for s in ("sdedit", "sdedit/1"))
    terms = guided(latent.condition(("smile",), 1), latent.condition(None, 1), 3.0)
    x = latent.encode(batch.images)
    for noise in (n1, n2):
        x = generate(latent, noise_to_level(grid, x, noise, 3), terms, start=3)
    assert torch.equal(twice[:, 1], latent.decode(x))


def test_a_negative_prompt_takes_the_empty_ones_place(latent):
    batch = toy.ToyData().batch("test", range(2))
    edit, strength = Edit("x", target_prompts=("smile", "hat")), torch.tensor([0.8])
    empty, same, bad = (
        attached(latent, negative=words).edit(batch, edit, strength)
        for words in (None, "", "glasses")
    )
    assert torch.equal(empty, same) and not torch.equal(empty, bad)
    unguided, too = (
        attached(latent, negative=words, guidance=1.0).edit(batch, edit, strength)
        for words in (None, "glasses")
    )
    assert torch.equal(unguided, too)


def test_strengths_of_one_step_are_one_image(latent):
    batch, edit = toy.ToyData().batch("test", range(1)), Edit("x", target_prompts=("smile",))
    editor, before = attached(latent), latent.evaluations.forward
    images = editor.edit(batch, edit, torch.tensor([0.4, 0.41, 0.59]))
    assert latent.evaluations.forward - before == 2 * 2  # steps x branches
    assert bool((images == images[:, :1]).all())
    assert [editor.effective_strength(s) for s in (0.1, 0.4, 0.59)] == [0.0, 0.4, 0.4]


# ---------------------------------------------------------------- a model of another domain


class Brighter(toy.GaussianModel):
    """The same images on a brighter ground: another domain."""

    def mean(self, prompt):
        return super().mean(prompt) + 0.2


def translating(model, target, **settings) -> SDEditTranslation:
    editor = SDEditTranslation(**settings)
    editor.attach(model, Streams(0), Cache(None), {"target_model": target})
    return editor


def test_a_translation_is_sdedit_by_the_target_model(gaussian):
    batch, target = Batch(("0",), gaussian.draw((SOURCE,)), (SOURCE,)), Brighter()
    edit, strengths = Edit("x", target_prompts=(SOURCE,)), torch.tensor([0.0, 0.5, 1.0])
    found = translating(gaussian, target).edit(batch, edit, strengths)
    assert torch.equal(found, attached(target, guidance=1.0).edit(batch, edit, strengths))
    assert torch.equal(found[:, 0], batch.images)
    assert 0 < float((found[:, 1] - batch.images).mean()) < 0.4


def test_a_target_model_of_another_size_is_refused(gaussian):
    class Larger(toy.GaussianModel):
        image_size = 16

    with pytest.raises(Incompatible, match="16 pixels a side"):
        translating(gaussian, Larger())


def test_guidance_of_a_target_model_without_prompts_is_refused(pixel):
    for settings in ({"guidance": 2.0}, {"negative": "hat"}):
        with pytest.raises(Incompatible, match="target_model=faces_lines reads none"):
            translating(pixel, pixel, **settings)


def test_the_steps_are_the_target_models():
    """The source model's are not what a strength is a share of."""
    SDEditTranslation().check(toy.ToyData(), 5, (0.1,))
    with pytest.raises(BadInput, match="0 of 5 sampling steps"):
        SDEditTranslation(steps=5).check(toy.ToyData(), 5, (0.1,))
