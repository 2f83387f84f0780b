"""The triangle of true noise, sample and inverted noise."""

import pytest
import torch
from planted import outputs_of

from metrics.codes.noise_triangle import NoiseTriangle


def scored(z, found, x0):
    metric = NoiseTriangle()
    told = {"noise": found, "codes": z.flatten(1), "other_codes": x0.flatten(1)}
    metric.update(outputs_of(torch.zeros(len(z), 3, 2, 2), **told))
    return {name: score.value for name, score in metric.compute().items()}


def draws(count):
    return torch.randn(count, 12, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_true_noise_is_best():
    z, x0 = draws(2)
    assert scored(z, z, x0)["noise_distance"] == 0


def test_unrelated_noise_is_worst():
    """Three independent points make a triangle of equal sides."""
    found = scored(*draws(3))
    assert found["noise_distance"] == pytest.approx(2**0.5, rel=0.02)
    sides = [found[f"{corner}_sample_distance"] for corner in ("noise", "latent")]
    assert sides == pytest.approx([2**0.5] * 2, rel=0.02)
    corners = [found[f"noise_angle_{corner}"] for corner in ("noise", "sample", "latent")]
    assert corners == pytest.approx([60.0] * 3, abs=1.5)


def test_a_latent_on_the_way_to_the_sample_is_seen():
    z, x0 = draws(2)
    found = scored(z, z + 0.25 * (x0 - z), x0)
    assert found["noise_angle_sample"] == pytest.approx(0, abs=1e-3)
    assert found["noise_angle_latent"] == pytest.approx(180, abs=1e-3)
    assert found["latent_sample_distance"] == pytest.approx(0.75 * found["noise_sample_distance"])
