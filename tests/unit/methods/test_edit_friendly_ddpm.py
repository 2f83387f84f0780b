"""Edit-friendly noise maps: their statistics, and what skip trades."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, seed: int = 0, **settings) -> EditFriendlyDDPM:
    editor = EditFriendlyDDPM(**settings)
    editor.attach(model, Streams(seed), Cache(None))
    return editor


def exact_batch(model, rows: int = 32) -> Batch:
    prompts = (SOURCE,) * rows
    return Batch(tuple(map(str, range(rows))), model.draw(prompts), prompts)


def test_maps_are_wide_and_neighbours_point_apart():
    """Independent n_i: std(z) above 1 and cosine(z_i, z_{i+1}) near -1/2, on an exact model."""
    model = toy.GaussianModel(spread=0.02)
    maps = attached(model, skip=0.0).invert(exact_batch(model)).parts[Space.NOISE_MAPS]
    assert maps.shape[1] == 50
    stds = maps[:, :-1].std((0, 2, 3, 4))  # the last one is a residual in image units
    assert float(stds.min()) > 1.2 and float(stds.max()) > 2
    rows = maps[:, :-1].flatten(2)
    cosines = torch.cosine_similarity(rows[:, :-1], rows[:, 1:], dim=2).mean(0)
    assert float(cosines.max()) < 0
    assert float(cosines.mean()) == pytest.approx(-0.48, abs=0.05)


def test_every_level_is_the_image_with_fresh_noise(gaussian):
    batch = exact_batch(gaussian)
    editor, grid = attached(gaussian), gaussian.grid()
    x = editor.draw_levels(grid, batch.images, batch, 10)
    assert x.shape[1] == 41 and torch.equal(x[:, -1], batch.images)
    alpha, sigma = grid.levels(torch.arange(10, 50), batch.images)
    n = ((x[:, :-1] - alpha * batch.images[:, None]) / sigma).flatten(2)
    assert float(n.std()) == pytest.approx(1, abs=0.01)
    cosines = torch.cosine_similarity(n[:, :-1], n[:, 1:], dim=2).mean(0)
    assert float(cosines.abs().max()) < 0.06


def gains(model, batch: Batch, **settings) -> list[float]:
    """Movement along the means' difference at strengths 0, 1/2, 1."""
    edit = Edit("smile", target_prompts=(TARGET,) * len(batch))
    images = attached(model, **settings).edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    way = model.mean(TARGET) - model.mean(SOURCE)
    moved = ((images - batch.images[:, None]) * way).sum((-3, -2, -1)) / way.square().sum()
    return moved.mean(0).tolist()


def test_at_guidance_1_the_edit_is_the_exact_translation(gaussian):
    found = gains(gaussian, exact_batch(gaussian, 4), skip=0.0, guidance_target=1.0)
    assert found == pytest.approx([0.0, 0.5, 1.0], abs=0.01)


def test_skip_and_guidance_trade_fidelity_for_effect(gaussian):
    batch = exact_batch(gaussian, 4)
    by_skip = [gains(gaussian, batch, skip=s, guidance_target=1.0)[2] for s in (0.0, 0.6, 0.9)]
    assert by_skip[0] > by_skip[1] + 0.003 and by_skip[1] > by_skip[2] + 0.1
    by_guidance = [gains(gaussian, batch, guidance_target=w)[2] for w in (1.0, 2.0, 4.0)]
    assert by_guidance[0] + 0.1 < by_guidance[1] < by_guidance[2] - 0.1


def test_other_seeds_reconstruct_alike_and_edit_apart(latent):
    batch = toy.ToyData().batch("test", range(2))
    edit = Edit("hat", target_prompts=("a face with hat",) * 2)
    one, two = (
        attached(latent, seed).edit(batch, edit, torch.tensor([0.0, 1.0])) for seed in (0, 1)
    )
    torch.testing.assert_close(one[:, 0], two[:, 0], rtol=1e-3, atol=1e-3)
    assert float((one[:, 1] - two[:, 1]).abs().mean()) > 1e-3
