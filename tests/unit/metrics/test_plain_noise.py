"""Inverted noise in plain and textured regions."""

import pytest
import torch
from planted import outputs_of

from metrics.codes.plain_noise import PlainNoise


def halves(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images that are plain on the left and textured on the right, and true noise."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(n, 3, 16, 16)
    images[..., 8:] = 2 * torch.rand(n, 3, 16, 8, generator=generator) - 1
    return images, torch.randn(n, 4, 8, 8, generator=generator)


def scored(images: torch.Tensor, noise: torch.Tensor):
    metric = PlainNoise()
    metric.update(outputs_of(images, noise=noise, sources=images))
    return metric.compute()


def test_true_noise_has_no_gap():
    scores = scored(*halves())
    gap = scores["noise_plain_gap"]
    assert gap.low < 0 < gap.high
    assert scores["noise_std_plain"].value == pytest.approx(1, abs=0.1)


def test_smooth_codes_of_plain_regions_are_found():
    images, noise = halves()
    noise[..., :4] *= 0.5
    gap = scored(images, noise)["noise_plain_gap"]
    assert gap.low > 0.3 and gap.value == pytest.approx(0.5, abs=0.1)


def test_trap_an_image_of_one_kind_has_no_gap():
    images, noise = halves()
    score = scored(torch.zeros_like(images), noise)
    assert score["noise_plain_gap"].value is None
    assert score["noise_std_plain"].value == pytest.approx(1, abs=0.1)
