"""Shifts of initial noise: each does what its name says, and the controls keep the law."""

import math

import pytest
import torch
from scipy.stats import kstest

from benchmarks.noise_shifts import LAW_PRESERVING, OFF_LAW, SHIFTS, relative_shift
from latentbench.errors import BadInput

STRENGTH = {"roll": 3.0, "rotation": 0.7, "convex": 0.25, "clip": 1.0, "clip_rescaled": 1.0}


def noise(seed=0, n=4, side=32):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def shifted(name, r=None, z=None):
    z = noise() if z is None else z
    return SHIFTS[name](z, noise(1, len(z)), STRENGTH.get(name, 0.5) if r is None else r)


@pytest.mark.parametrize("name", SHIFTS)
def test_every_shift_moves_every_row_and_leaves_its_input_alone(name):
    z = noise()
    found = shifted(name, z=z)
    assert torch.equal(z, noise()) and found.shape == z.shape and found.dtype == z.dtype
    assert bool(found.isfinite().all()) and float(relative_shift(z, found).min()) > 1e-3


@pytest.mark.parametrize("name", SHIFTS)
def test_a_row_does_not_depend_on_its_neighbours(name):
    r = STRENGTH.get(name, 0.5)
    whole, alone = shifted(name), SHIFTS[name](noise()[2:3], noise(1)[2:3], r)
    torch.testing.assert_close(alone[0], whole[2])


@pytest.mark.parametrize("name", LAW_PRESERVING)
def test_controls_keep_the_normal_law(name):
    assert kstest(shifted(name).flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", sorted(OFF_LAW.keys() - {"blur", "tile", "gradient"}))
def test_off_law_shifts_leave_the_law_of_values(name):
    assert kstest(shifted(name).flatten().numpy(), "norm").pvalue < 1e-3


@pytest.mark.parametrize("name", ["blur", "tile", "gradient"])
def test_off_law_shifts_of_the_map_leave_the_law_of_its_halves(name):
    """Their values may look normal one by one; sums and differences of halves do not."""
    top, bottom = shifted(name, 1.0, noise(n=64)).chunk(2, 2)
    halves = torch.cat([(top - bottom), (top + bottom)]).mean((2, 3)).flatten() * 32 / 2
    assert kstest(halves.numpy(), "norm", (0, 2**0.5)).pvalue < 1e-2


@pytest.mark.parametrize(
    ("name", "r"),
    [("mean", 0.0), ("channel_mean", 0.0), ("shrink", 1.0), ("stretch", 1.0), ("gradient", 0.0),
     ("low_frequency", 0.0), ("clip", 9.0), ("sparse", 0.0), ("convex", 0.0), ("rotation", 0.0),
     ("roll", 0.0)],
)  # fmt: skip
def test_no_strength_is_no_shift(name, r):
    torch.testing.assert_close(shifted(name, r), noise(), rtol=1e-5, atol=1e-6)


def test_sizes_are_what_they_say():
    z = noise()
    d = z[0].numel()
    size = z.flatten(1).norm(dim=1)
    expected = 0.3 * math.sqrt(d) / size
    torch.testing.assert_close(relative_shift(z, shifted("mean", 0.3)), expected)
    torch.testing.assert_close(relative_shift(z, shifted("low_frequency", 0.3)), expected)
    torch.testing.assert_close(relative_shift(z, shifted("shrink", 0.9)), torch.full((4,), 0.1))
    found = relative_shift(z, shifted("rotation", 0.7))
    torch.testing.assert_close(found, torch.full((4,), 2 * math.sin(0.35)))
    assert float((shifted("sparse", 0.25) == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    for name in ("blur", "clip_rescaled", "uniform", "laplace", "sign"):
        assert float(shifted(name).square().mean()) == pytest.approx(1, abs=0.03), name


def test_a_blurred_noise_is_smooth_and_a_tiled_one_repeats():
    z = shifted("blur", 2.0)
    assert float((z[..., 1:] * z[..., :-1]).mean()) > 0.8
    z = shifted("tile")
    assert torch.equal(z[..., :16, :16], z[..., 16:, 16:])


def test_maps_are_needed_where_the_shift_moves_pixels():
    with pytest.raises(BadInput, match="square maps"):
        SHIFTS["gradient"](torch.randn(2, 16), torch.randn(2, 16), 1.0)
    assert SHIFTS["mean"](torch.zeros(2, 16), torch.zeros(2, 16), 1.0).mean() == 1
