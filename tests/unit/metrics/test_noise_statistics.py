import numpy as np
import pytest
import torch
from planted import outputs_of

from metrics.codes.noise_statistics import (
    NoiseStatistics,
    accepted,
    neighbour_r2,
    patch_correlation,
)


def true_noise(n=64, c=3, size=16, seed=100):
    return torch.randn(n, c, size, size, generator=torch.Generator().manual_seed(seed))


def smooth(noise):
    padded = torch.nn.functional.pad(noise, (1, 1, 1, 1), mode="circular")
    return torch.nn.functional.avg_pool2d(padded, 3, 1) * 3


def scored(noise):
    metric = NoiseStatistics()
    metric.update(outputs_of(torch.zeros(len(noise), 3, 2, 2), noise=noise))
    return metric.compute()


def test_true_noise_is_best():
    scores = scored(true_noise())
    assert scores["noise_mean"].low < 0 < scores["noise_mean"].high
    assert scores["noise_std"].low < 1 < scores["noise_std"].high
    assert scores["noise_shapiro"].low < 0.95 < scores["noise_shapiro"].high
    assert scores["noise_kl"].value < 0.01
    assert scores["noise_neighbour_r2"].low < 0 < scores["noise_neighbour_r2"].high
    floor = scores["noise_patch_correlation"]
    stated = float(floor.note.split("shape: ")[1].split(" ")[0])
    assert floor.value == pytest.approx(stated, abs=0.02) and floor.low is None


def test_images_are_worst():
    """Smooth, heavy at the ends: what a failed inversion looks like."""
    images = torch.sign(smooth(smooth(true_noise())))
    scores = scored(images)
    assert scores["noise_shapiro"].value == 0
    assert scores["noise_kurtosis"].value < -1
    assert scores["noise_neighbour_r2"].low > 0.1


def test_trap_right_moments_but_not_white():
    scores = scored(smooth(true_noise()))
    assert scores["noise_std"].value == pytest.approx(1, abs=0.05)
    assert scores["noise_kl"].value < 0.02
    assert scores["noise_neighbour_r2"].low > 0.2
    assert scores["noise_patch_correlation"].value > 0.6


def test_trap_constant_maps_pass_nothing():
    scores = scored(torch.zeros(10, 3, 8, 8))
    assert scores["noise_shapiro"].value == 0
    assert scores["noise_kl"].value is None and scores["noise_kurtosis"].value is None
    assert scores["noise_patch_correlation"].value is None
    assert scores["noise_neighbour_r2"].value is None


def test_patch_correlation_floor_is_that_of_the_paper_protocol():
    """Simulated for top 20, three channels, 8 px: 0.216 at n = 256."""
    assert patch_correlation(true_noise(256, 3, 8), 8, 20) == pytest.approx(0.216, abs=0.01)


def test_patch_correlation_equals_numpy():
    noise = true_noise(12, 2, 8)
    r = np.corrcoef(noise.double().reshape(12, -1).numpy().T)
    above = np.sort(np.abs(r[np.triu_indices(128, 1)]))[-20:]
    assert patch_correlation(noise, 8, 20) == pytest.approx(above.mean())


def test_neighbour_r2_is_unbiased_at_small_n():
    values = [neighbour_r2(true_noise(10, seed=k)) for k in range(20)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(20)


def test_shapiro_accepts_the_stated_share():
    assert 0.9 < float(accepted(true_noise(400, 1, 8).double().flatten(1)).mean()) < 0.99


def test_few_images_have_no_correlations():
    scores = scored(true_noise(4))
    assert scores["noise_patch_correlation"].value is None
    assert "at least 8" in scores["noise_neighbour_r2"].note
    assert scores["noise_mean"].value is not None
