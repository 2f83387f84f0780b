"""DiffEdit."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import generate, guided, noise_to_level, plain, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit
from methods.editing.diffedit import DiffEdit

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, **settings) -> DiffEdit:
    editor = DiffEdit(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


class Boxed(toy.GaussianModel):
    """A smile is a change of the left half alone."""

    def mean(self, prompt):
        mean = torch.zeros(self.latent_shape)
        mean[:, :, :4] = 0.5 * ("smile" in prompt.split())
        return mean


@pytest.fixture
def boxed() -> tuple[Boxed, Batch, Edit]:
    model = Boxed(steps=10)
    batch = Batch(("0", "1"), model.draw((SOURCE,) * 2), (SOURCE,) * 2)
    return model, batch, Edit("smile", target_prompts=(TARGET,) * 2)


def test_the_map_is_where_the_prompts_differ(boxed):
    model, batch, edit = boxed
    editor = attached(model, clamp=1.5)
    conditions = [model.condition(p, 2) for p in (batch.prompts, edit.target_prompts)]
    mask = editor._mask(batch, edit, batch.images, *conditions)[:, 0]
    assert float(mask[:, :, :4].mean()) > 0.9 and float(mask[:, :, 5:].mean()) < 0.1


def test_outside_the_mask_the_source_is_kept_exactly(boxed):
    model, batch, edit = boxed
    masks = torch.zeros(2, 8, 8)
    masks[:, :, :4] = 1
    local = Edit("smile", target_prompts=edit.target_prompts, masks=masks)
    editor = attached(model, mask="given")
    images = editor.edit(batch, local, torch.tensor([0.0, 0.5, 0.8]))
    assert torch.equal(images[:, 0], batch.images)
    assert torch.equal(images[..., 4:], batch.images[:, None, ..., 4:].expand_as(images[..., 4:]))
    moved = (images - images[:, :1])[..., :4].mean((0, 2, 3, 4))
    assert 0.1 < float(moved[1]) < float(moved[2])


def test_inside_the_mask_it_is_the_ddim_edit_from_the_strengths_level(latent):
    batch = toy.ToyData().batch("test", range(2))
    masks = torch.ones(2, *batch.images.shape[-2:])
    edit = Edit("x", target_prompts=("smile", "hat"), masks=masks)
    found = attached(latent, mask="given").edit(batch, edit, torch.tensor([0.6]))[:, 0]
    source, target = (latent.condition(p, 2) for p in (batch.prompts, edit.target_prompts))
    x = ddim_trajectory(latent, batch, Cache(None), condition=source)[:, 2]
    terms = guided(target, latent.condition(None, 2), 3.0)
    assert torch.equal(found, latent.decode(generate(latent, x, terms, start=2)))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_contrast_is_of_both_prompts_under_the_same_noises(gaussian, kind):
    gaussian.prediction_type = kind
    batch = Batch(("0", "1"), gaussian.draw((SOURCE,) * 2), (SOURCE,) * 2)
    source, target = (gaussian.condition((p,) * 2, 2) for p in (SOURCE, TARGET))
    editor, grid = attached(gaussian, draws=3, steps=10), gaussian.grid(10)
    before = gaussian.evaluations.forward
    found = editor.contrast(batch, batch.images, source, target)
    assert gaussian.evaluations.forward - before == 2 * 3 * 2
    noise = Streams(0).normal("diffedit", batch.ids, (3, *gaussian.latent_shape))
    maps = []
    for k in range(3):
        x = noise_to_level(grid, batch.images, noise[:, k], 5)
        (_, one), (_, two) = (predict(gaussian, x, grid, 5, plain(c)) for c in (source, target))
        maps.append((two - one).abs().mean(1))
    torch.testing.assert_close(found, torch.stack(maps).mean(0), rtol=1e-4, atol=1e-5)


def test_what_is_below_a_step_is_refused_before_work():
    editor, data = DiffEdit(), toy.ToyData()
    with pytest.raises(BadInput, match=r"strength 0.1 is 0 of 5 sampling steps"):
        editor.check(data, 5, [0.1])
    with pytest.raises(BadInput, match=r"method.mask_level=0.1 is 0 of 5"):
        DiffEdit(mask_level=0.1).check(data, 5, [0.8])
    DiffEdit(mask_level=0.1, mask="given").check(data, 5, [0.8])


def test_given_masks_are_asked_of_the_benchmark(latent):
    assert Capability.EDIT_MASKS in DiffEdit.required(["edit"], {"mask": "given"})[1]
    assert Capability.EDIT_MASKS not in DiffEdit.required(["edit"], {"mask": "own"})[1]
