"""Degradations: nothing at 0, more with the amount, each image on its own."""

import pytest
import torch

from latentbench.data import faces
from latentbench.zoo.degradations import DEGRADATIONS, blur, contrast, degraded, grain

KINDS = pytest.mark.parametrize("kind", DEGRADATIONS)


@pytest.fixture(scope="module")
def images():
    return faces.render(faces.sample_factors("test", torch.arange(4)))


def amounts(*values):
    return torch.tensor(values)[:, None, None, None]


def seeded():
    return torch.Generator().manual_seed(0)


@KINDS
def test_nothing_happens_at_0(images, kind):
    assert (DEGRADATIONS[kind](images, amounts(0.0, 0.0, 0.0, 0.0)) - images).abs().max() < 2e-3


@KINDS
def test_more_is_worse(images, kind):
    """Each image by its own amount, whatever its neighbours'."""
    one = images[:1].expand(4, -1, -1, -1)
    worse = DEGRADATIONS[kind](one, amounts(0.1, 0.4, 0.7, 1.0))
    assert ((worse - one).square().mean((1, 2, 3)).diff() > 0).all()
    alone = DEGRADATIONS[kind](images[:1], amounts(0.4))
    torch.testing.assert_close(alone, worse[1:2], atol=1e-5, rtol=0)


@KINDS
def test_a_flat_image_stays_flat(kind):
    """Noise is not among them: it is asked for apart."""
    grey = torch.full((1, 3, 64, 64), 0.3)
    worse = DEGRADATIONS[kind](grey, amounts(1.0))
    assert worse.std((2, 3)).max() < 1e-5


def test_full_blur_spreads_a_point_by_2_pixels():
    point = torch.zeros(1, 3, 64, 64)
    point[..., 32, 32] = 1
    line = blur(point, amounts(1.0))[0, 0].sum(0)
    variance = (line * (torch.arange(64) - 32).square()).sum() / line.sum()
    assert variance.sqrt() == pytest.approx(2, rel=0.02)


def test_full_loss_leaves_two_fifths_of_the_contrast(images):
    flat = contrast(images, amounts(1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(flat.std((1, 2, 3)), 0.4 * images.std((1, 2, 3)))
    torch.testing.assert_close(flat.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6, rtol=0)


def test_grain_is_noise_of_the_amount():
    grey = torch.zeros(2, 3, 64, 64)
    noisy = grain(grey, amounts(1.0, 0.5), seeded())
    assert noisy.std((1, 2, 3)).tolist() == pytest.approx([0.1, 0.05], rel=0.03)
    assert torch.equal(degraded(grey, 0.0, seeded(), 0.0), grey)
    assert (degraded(grey, 0.0, seeded(), 1.0) != grey).any()


def test_draws_follow_the_generator_and_the_probability():
    shown = torch.zeros(600, 3, 16, 16) + 0.4 * torch.randn(600, 3, 16, 16, generator=seeded())
    shown = shown.clamp(-1, 1)
    once, again = degraded(shown, 0.1, seeded()), degraded(shown, 0.1, seeded())
    assert torch.equal(once, again)
    changed = (once != shown).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(1 - 0.9 ** len(DEGRADATIONS), abs=0.06)
    assert torch.equal(degraded(shown, 0.0, seeded()), shown)
    worst = degraded(shown, 1.0, seeded())
    assert worst.min() >= -1 and worst.max() <= 1
