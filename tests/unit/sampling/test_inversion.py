"""Cached DDIM inversion."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.model import Condition
from latentbench.sampling.inversion import ddim_invert, ddim_trajectory
from latentbench.sampling.loop import guided, invert, noise_to_level
from latentbench.types import Batch, Space


@pytest.fixture
def batch() -> Batch:
    return toy.ToyData().batch("test", range(2))


def test_it_is_the_loops_inversion_at_guidance_1(latent, batch):
    condition = latent.condition(batch.prompts, 2)
    found = ddim_invert(latent, batch, Cache(None), condition=condition)
    terms = guided(latent.condition(batch.prompts, 2), Condition(), 1.0)
    expected = invert(latent, latent.encode(batch.images), terms)
    assert torch.equal(found, expected)


def test_no_prompt_is_the_empty_prompt(latent, batch):
    free, empty, own = (
        ddim_invert(latent, batch, Cache(None), condition=condition)
        for condition in (None, latent.condition(("", ""), 2), latent.condition(batch.prompts, 2))
    )
    assert torch.equal(free, empty) and not torch.equal(free, own)


def test_a_model_without_prompts_gets_none(pixel, batch):
    found = pixel.invert(batch, Cache(None), prompts=batch.prompts)
    assert torch.equal(found.parts[Space.NOISE], ddim_invert(pixel, batch, Cache(None)))
    assert pixel.condition_of(found) == Condition()


def test_a_second_request_costs_nothing(pixel, batch, tmp_path):
    first = ddim_invert(pixel, batch, Cache(tmp_path))
    before = pixel.evaluations.forward
    again = ddim_invert(pixel, batch, Cache(tmp_path))
    assert pixel.evaluations.forward == before and torch.equal(first, again)


def test_whatever_changes_the_result_changes_the_key(pixel, latent, batch, tmp_path):
    """Each request against a warm cache equals the same request without one."""
    noise = torch.randn(2, *latent.latent_shape, generator=torch.Generator().manual_seed(0))
    other = replace(batch, images=batch.images.flip(0))
    words, bad = latent.condition(("hat", "smile"), 2), latent.condition(("glasses",) * 2, 2)
    requests = [
        (latent, batch, {}),
        (latent, other, {}),
        (latent, batch, {"condition": words}),
        (latent, batch, {"condition": words, "guidance": 2.0}),
        (latent, batch, {"condition": words, "guidance": 3.0}),
        (latent, batch, {"condition": words, "guidance": 3.0, "null": bad}),
        (latent, batch, {"steps": 4}),
        (latent, batch, {"convention": "next"}),
        (latent, batch, {"forward_noise": noise, "forward_steps": 1}),
        (latent, batch, {"forward_noise": noise, "forward_steps": 2}),
        (latent, batch, {"forward_noise": -noise, "forward_steps": 2}),
        (pixel, batch, {}),
    ]
    cache, found = Cache(tmp_path), []
    for model, images, options in requests:
        found.append(ddim_invert(model, images, cache, **options))
        assert torch.equal(found[-1], ddim_invert(model, images, Cache(None), **options))
    same = [(i, j) for i, a in enumerate(found) for j, b in enumerate(found[:i])
            if a.shape == b.shape and torch.equal(a, b)]  # fmt: skip
    assert same == []


def test_the_key_knows_the_model(tmp_path):
    wide, narrow = (toy.GaussianModel(spread=spread) for spread in (0.2, 0.02))
    batch, cache = Batch(("0", "1"), wide.draw(("hat", "hat"))), Cache(tmp_path)
    first, second = (ddim_invert(model, batch, cache) for model in (wide, narrow))
    assert torch.equal(second, ddim_invert(narrow, batch, Cache(None)))
    assert not torch.equal(first, second)


def test_other_steps_are_a_grid_of_their_own(gaussian):
    batch = Batch(("0", "1"), gaussian.draw(("hat", "hat")))
    terms = guided(gaussian.condition(None, 2), Condition(), 1.0)
    expected = invert(gaussian, batch.images, terms, grid=gaussian.grid(7))
    assert torch.equal(ddim_invert(gaussian, batch, Cache(None), steps=7), expected)


def test_noise_is_of_the_forward_process(pixel, zoo):
    scheduler = DDIMScheduler.from_pretrained(zoo / "pixel", subfolder="scheduler")
    x0, noise = torch.randn(2, 2, *pixel.latent_shape, generator=torch.Generator().manual_seed(0))
    grid = pixel.grid()
    for level, timestep in enumerate(grid.timesteps):
        expected = scheduler.add_noise(x0, noise, timestep)
        torch.testing.assert_close(noise_to_level(grid, x0, noise, level), expected)


def test_all_steps_may_be_one_forward_draw(gaussian):
    images = gaussian.draw(("hat", "hat"))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    batch, grid = Batch(("0", "1"), images), gaussian.grid()
    options = {"forward_noise": noise, "forward_steps": grid.n}
    found = ddim_invert(gaussian, batch, Cache(None), **options)
    assert torch.equal(found, noise_to_level(grid, images, noise, 0))
    with pytest.raises(BadInput, match=f"forward_steps must be 0 to {grid.n}"):
        ddim_invert(gaussian, batch, Cache(None), **options | {"forward_steps": grid.n + 1})


def test_without_forward_steps_the_forward_noise_is_not_used(gaussian):
    batch = Batch(("0", "1"), gaussian.draw(("hat", "hat")))
    found = ddim_invert(gaussian, batch, Cache(None), forward_noise=torch.ones(2, 3, 8, 8))
    assert torch.equal(found, ddim_invert(gaussian, batch, Cache(None)))


def test_forward_steps_start_at_a_noised_level(gaussian):
    images = gaussian.draw(("hat", "hat"))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    found = ddim_invert(
        gaussian, Batch(("0", "1"), images), Cache(None), forward_noise=noise, forward_steps=3
    )
    grid, terms = gaussian.grid(), guided(gaussian.condition(None, 2), Condition(), 1.0)
    x = noise_to_level(grid, images, noise, grid.n - 3)
    assert torch.equal(found, invert(gaussian, x, terms, start=grid.n - 3))


def test_forward_steps_make_codes_of_plain_images_noisier(gaussian):
    """The first-steps fix: DDIM codes of smooth images lack variance; a forward draw gives it."""
    images = toy.GaussianModel(spread=0.02).draw([""] * 32)
    batch = Batch(tuple(map(str, range(32))), images)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    plain = ddim_invert(gaussian, batch, Cache(None))
    fixed = ddim_invert(gaussian, batch, Cache(None), forward_noise=noise, forward_steps=5)
    assert float(plain.std()) < 0.5 * float(fixed.std())


@pytest.mark.parametrize("forward_steps", [0, 2])
def test_a_trajectory_ends_in_the_image_and_begins_in_x_t(latent, batch, forward_steps):
    noise = torch.randn(2, *latent.latent_shape, generator=torch.Generator().manual_seed(0))
    settings = {"forward_noise": noise, "forward_steps": forward_steps}
    levels = ddim_trajectory(latent, batch, Cache(None), **settings)
    assert levels.shape[1] == latent.grid().n + 1
    assert torch.equal(levels[:, -1], latent.encode(batch.images))
    assert torch.equal(levels[:, 0], ddim_invert(latent, batch, Cache(None), **settings))
    terms = guided(latent.condition(None, 2), Condition(), 1.0)
    for i in range(latent.grid().n - forward_steps):
        assert torch.equal(
            levels[:, i], invert(latent, levels[:, i + 1], terms, start=i + 1, stop=i)
        )


def test_a_kept_trajectory_serves_who_asks_for_x_t(pixel, batch, tmp_path):
    cache = Cache(tmp_path, lambda: (pixel.evaluations.forward, pixel.evaluations.backward))
    levels = ddim_trajectory(pixel, batch, cache)
    before = pixel.evaluations.forward
    assert torch.equal(ddim_invert(pixel, batch, cache), levels[:, 0])
    assert pixel.evaluations.forward == before and cache.saved.tolist() == [2 * 5, 0]
