"""SDEdit."""

import pytest
import torch
import toy

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.sampling import generate, guided, noise_to_level
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.sdedit import SDEdit

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
    batch = Batch(("0",), gaussian.sample((SOURCE,)), (SOURCE,))
    edit = Edit("x", target_prompts=(TARGET,))
    editor = attached(gaussian, guidance=1.0)
    for k in (1, 29, 50):
        before = gaussian.evaluations.forward
        editor.edit(batch, edit, torch.tensor([k / 50]))
        assert gaussian.evaluations.forward - before == k


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_background_error_and_effect_rise_with_strength(gaussian, eta):
    rows = 16
    batch = Batch(tuple(map(str, range(rows))), gaussian.sample((SOURCE,) * rows))
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
    with pytest.raises(BadInput, match=r"0 of 5 steps; use 0\.2 up"):
        attached(latent).edit(batch, edit, torch.tensor([0.1]))
    with pytest.raises(BadInput, match="at most 1"):
        SDEdit(max_strength=1.5)
