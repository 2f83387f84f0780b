"""Where inversion leaves the sampler's way, and which noises belong together."""

import numpy as np
import pytest
import torch
from planted import outputs_of

from metrics.codes.level_error import LevelError
from metrics.codes.noise_match import NoiseMatch, gaussian_kl
from metrics.codes.noise_path import NoisePath
from metrics.codes.plain_error import PlainError
from metrics.codes.probable_triangle import ProbableTriangle, most_probable


def drawn(count: int, n: int = 20) -> torch.Tensor:
    return torch.randn(count, n, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def scored(metric, images=None, **told):
    n = len(next(iter(told.values())))
    metric.update(outputs_of(torch.zeros(n, 3, 8, 8) if images is None else images, **told))
    return metric.compute()


def values(metric, images=None, **told):
    return {name: score.value for name, score in scored(metric, images, **told).items()}


def way(z: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
    """Return nine levels on a straight way from noise to sample."""
    return torch.stack([z.lerp(x0, k / 8) for k in range(9)], 1)


# ---------------------------------------------------------------- level_error


def test_an_inversion_on_the_sampler_s_way_errs_nowhere():
    levels = way(*drawn(2))
    found = values(LevelError(), trajectory=levels, found_trajectory=levels)
    assert list(found.values()) == [0, 0, 0, 0]


def test_an_error_counts_from_the_level_where_it_is_made():
    """Of size .5 from half of the inversion's way on; levels are ordered the noisiest first."""
    levels = way(*drawn(2))
    found = levels.clone()
    found[:, :5] += 0.5
    errors = values(LevelError(), trajectory=levels, found_trajectory=found)
    assert list(errors.values()) == pytest.approx([0, 0.5, 0.5, 0.5])


# ---------------------------------------------------------------- noise_path


def test_a_way_that_leaves_the_true_noise_for_the_inverted_one_turns_half_way():
    z, other = drawn(2)
    levels = way(z, other)
    found = values(NoisePath(), trajectory=levels, noise=other, codes=z.flatten(1))
    places = [found[f"path_lambda_{share}"] for share in (25, 50, 75, 100)]
    assert places == pytest.approx([0.25, 0.5, 0.75, 1])
    assert found["path_turn"] == pytest.approx(0.5) and found["path_turned"] == 1


def test_a_way_that_has_nothing_to_do_with_the_inverted_noise_never_turns():
    """x_0 at a right angle to the way between both noises."""
    z = torch.zeros(20, 3, 8, 8)
    z[:, 0] = 1
    x0, other = torch.zeros_like(z), z.clone()
    x0[:, 1], other[:, 2] = 5, 1
    found = values(NoisePath(), trajectory=way(z, z + x0), noise=other, codes=z.flatten(1))
    assert found == pytest.approx(dict.fromkeys(found, 0) | {"path_turn": 1})


def test_trap_noise_that_is_found_exactly_has_no_path():
    z, x0 = drawn(2)
    found = values(NoisePath(), trajectory=way(z, x0), noise=z, codes=z.flatten(1))
    assert set(found.values()) == {None}


# ---------------------------------------------------------------- plain_error


def test_errors_are_told_apart_by_region():
    images = torch.zeros(20, 3, 8, 8)
    images[..., 4:] = 2 * torch.rand(20, 3, 8, 4, generator=torch.Generator().manual_seed(0)) - 1
    z = drawn(1)[0]
    noise = z.clone()
    noise[..., :4] += 0.6
    noise[..., 4:] -= 0.2
    told = {"noise": noise, "codes": z.flatten(1), "sources": images}
    found = scored(PlainError(), images, **told)
    assert found["noise_error_plain"].value == pytest.approx(0.6, abs=0.02)
    assert found["noise_error_textured"].value == pytest.approx((0.52 / 5) ** 0.5, abs=0.02)
    assert found["noise_error_gap"].value > 0.25
    exact = values(PlainError(), images, **told | {"noise": z})
    assert exact == dict.fromkeys(exact, 0)
    flat = values(PlainError(), torch.zeros_like(images), **told | {"sources": 0 * images})
    assert flat["noise_error_textured"] is None and flat["noise_error_plain"] > 0.3


# ---------------------------------------------------------------- noise_match


def match(z, x0, found):
    told = {"codes": z.flatten(1), "other_codes": x0.flatten(1), "noise": found}
    return values(NoiseMatch(), **told)


def test_noise_near_its_sample_is_matched_and_unrelated_noise_is_not():
    z, x0 = drawn(2)
    near = match(z, z + 0.3 * x0, z)
    assert near["match_noise"] == near["match_sample"] == 1
    far = match(z, x0, z)
    assert far["match_noise"] < 0.3 and far["match_sample"] < 0.3


def test_trap_samples_of_one_noise_are_matched_one_way_alone():
    """All samples lie near to the first noise: each noise still finds its own sample."""
    z = drawn(1)[0]
    x0 = z[:1] + 0.05 * (z - z[:1])
    found = match(z, x0, z)
    assert found["match_noise"] == pytest.approx(1 / 20)
    assert found["match_sample"] == 1


def test_divergences_see_what_inverted_noise_lacks():
    z, other = drawn(2, 200)
    same = match(z, other, z)
    assert same["noise_kl_pooled"] == same["noise_kl_coordinates"] == 0
    small = match(z, other, z / 2)
    assert small["noise_kl_pooled"] == pytest.approx(-np.log(2) + 2 - 0.5, rel=0.01)
    unrelated = match(z, other, other)
    assert unrelated["noise_kl_coordinates"] == pytest.approx(2 / 200, rel=0.1)
    assert unrelated["noise_kl_pooled"] < 1e-3


def test_trap_an_entry_that_never_varies_has_no_divergence():
    assert np.isnan(gaussian_kl(np.ones((4, 2)), np.zeros((4, 2))))


# ---------------------------------------------------------------- probable_triangle


def test_unrelated_points_make_an_even_triangle():
    z, x0, found = drawn(3, 100)
    told = {"codes": z.flatten(1), "other_codes": x0.flatten(1), "noise": found}
    assert list(values(ProbableTriangle(), **told).values()) == pytest.approx([60] * 3, abs=3)


def test_the_most_frequent_angles_win_over_their_means():
    corners = [[20.0] * 7 + [80.0] * 5, [60.0] * 7 + [50.0] * 5, [100.0] * 7 + [50.0] * 5]
    assert most_probable(*map(np.array, corners)) == (20, 60, 100)


def test_trap_angles_that_do_not_add_up_are_no_triangle():
    assert most_probable(*(np.array([a, np.nan]) for a in (20.0, 30.0, 40.0))) is None
    z = drawn(1)[0]
    told = {"codes": z.flatten(1), "other_codes": z.flatten(1), "noise": z}
    found = scored(ProbableTriangle(), **told)["probable_angle_noise"]
    assert found.value is None and "no three angles that occur" in found.note
