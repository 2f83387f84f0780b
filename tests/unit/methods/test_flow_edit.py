"""FlowEdit."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import guided, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.flow_edit import FlowEdit

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, seed=0, **settings) -> FlowEdit:
    editor = FlowEdit(**settings)
    editor.attach(model, Streams(seed), Cache(None))
    return editor


def edited(model, rows=8, seed=0, **settings):
    """Return the exact model's images and, per image, gain and what else changed."""
    batch = Batch(tuple(map(str, range(rows))), model.draw((SOURCE,) * rows), (SOURCE,) * rows)
    edit = Edit("x", target_prompts=(TARGET,) * rows)
    images = attached(model, seed, **settings).edit(batch, edit, torch.ones(1))[:, 0]
    way, moved = model.mean(TARGET) - model.mean(SOURCE), images - batch.images
    gain = (moved * way).sum((1, 2, 3)) / way.square().sum()
    rest = moved - gain[:, None, None, None] * way
    return images, float(gain.mean()), float(rest.abs().mean())


UNGUIDED = {"guidance_source": 1.0, "guidance_target": 1.0}


def test_strength_0_is_the_image_whatever_the_network(latent):
    batch = toy.ToyData().batch("test", range(2))
    edit = Edit("x", target_prompts=("smile", "a face with hat"))
    found = attached(latent, steps=3).edit(batch, edit, torch.zeros(1))[:, 0]
    expected = latent.decode(latent.encode(batch.images))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_one_step_is_the_published_one(latent):
    """In the last step alone: z + (t' - t) [v_target - v_source]."""
    batch = toy.ToyData().batch("test", range(2))
    targets = ("smile", "a face with hat")
    found = attached(latent, n_max=1).edit(batch, Edit("x", target_prompts=targets), torch.ones(1))
    grid, x = latent.grid(), latent.encode(batch.images)
    n = Streams(0).normal("flow_edit", batch.ids, (1, 1, *x.shape[1:]))[:, 0, 0]
    a, s = float(grid.alpha[4]), float(grid.sigma[4])
    t, t_next = s / (a + s), float(grid.sigma[5] / (grid.alpha[5] + grid.sigma[5]))
    v = []
    for prompts, w in ((batch.prompts, 1.5), (targets, 5.0)):
        terms = guided(latent.condition(prompts, 2), latent.condition(None, 2), w)
        x0, eps = predict(latent, a * x + s * n, grid, 4, terms)
        v.append(eps - x0)
    expected = latent.decode(x + (t_next - t) * (v[1] - v[0]))
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_effect_grows_with_the_steps_that_are_made_and_the_rest_stays(gaussian):
    found = [edited(gaussian, n_max=k, **UNGUIDED)[1:] for k in (10, 20, 33, 50)]
    gains, rests = zip(*found, strict=True)
    assert 0.5 < gains[0] < gains[1] < gains[2] < gains[3] < 1.1
    assert max(rests) < 0.05


def test_more_draws_make_seeds_agree(gaussian):
    spreads = []
    for draws in (1, 8):
        images = [edited(gaussian, 4, seed, draws=draws, **UNGUIDED)[0] for seed in (0, 1)]
        spreads.append(float((images[0] - images[1]).abs().mean()))
    assert 0 < spreads[1] < 0.6 * spreads[0]


def test_the_source_is_evaluated_once_for_all_strengths(latent):
    batch = toy.ToyData().batch("test", range(2))
    before = latent.evaluations.forward
    attached(latent, n_max=2, draws=3).edit(
        batch, Edit("x", target_prompts=("smile",) * 2), torch.tensor([0.5, 1.0])
    )
    assert latent.evaluations.forward - before == 2 * 2 * 3 * 2 * (1 + 2)


def test_steps_that_are_not_there_are_refused():
    for n_max, came in ((6, "is 6 of 5"), (0.1, "is 0 of 5")):
        with pytest.raises(BadInput, match=came):
            FlowEdit(n_max=n_max).check(toy.ToyData(), 5, [1.0])
