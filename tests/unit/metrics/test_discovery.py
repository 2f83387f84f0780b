"""Discovery on effects that are made up: best, worst, traps."""

import numpy as np
import pytest
import torch

from metrics.edits.discovery import Effects, figures, outside

K, F, N = 4, 6, 12
CEILING = np.full(F, 0.8)


def effects(mean, spread=0.05, seed=0):
    """Return effects of these means ``[k, f]`` on N images, with noise of their own."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(mean, N, 0) + rng.normal(0, spread, (len(mean) * N, F))
    number, half = np.repeat(np.arange(len(mean)), N), np.tile(np.arange(N) % 2, len(mean))
    return Effects.of(rows, number, half)


def noise(seed=9):
    return effects(np.random.default_rng(seed).normal(size=(K, F)) / 3, seed=seed)


def found(mean, **settings):
    return figures([effects(mean, **settings), noise()], CEILING)


EACH = np.eye(K, F)


def test_each_direction_one_factor_of_its_own_is_the_best():
    best = found(EACH, spread=1e-6)
    assert best["found"] == pytest.approx(1, abs=1e-4)
    assert best["direction_coverage"] == best["transfer"] == 1
    assert best["dci_d"] == pytest.approx(1, abs=1e-4) and best["direction_diversity"] > 0.999


def test_the_score_is_one_at_the_ceiling_and_nought_at_noise():
    own = noise()
    assert figures([own, own], CEILING)["discovery"] == 0
    best = effects(EACH, spread=1e-6)
    score = figures([best, noise()], np.full(F, best.matched()))
    assert score["discovery"] == pytest.approx(1)


def test_one_direction_four_times_counts_once():
    again = found(np.repeat(EACH[:1], K, 0), spread=1e-6)
    assert again["found"] < 1 / K + 0.01 and again["direction_selectivity"] > 0.99
    assert again["direction_coverage"] == 1 / K and again["direction_diversity"] == pytest.approx(
        0, abs=1e-6
    )


def test_a_sign_does_not_matter_and_an_order_does_not():
    turned = found(-EACH[[2, 0, 3, 1]], spread=1e-6)
    assert turned["found"] == pytest.approx(1, abs=1e-4)


def test_what_holds_on_half_of_the_images_alone_counts_for_nothing():
    rows = effects(EACH, spread=0).rows
    flipped = np.where(effects(EACH).half[:, None] == 0, rows, -rows)
    own = effects(EACH)
    trap = Effects.of(flipped, own.number, own.half)
    assert figures([trap, noise()], CEILING)["found"] == pytest.approx(-1)


def test_what_cancels_out_between_images_counts_against_a_direction():
    clean, restless = found(EACH), found(EACH, spread=1.0)
    assert restless["found"] < clean["found"] / 2


def test_what_both_sides_do_alike_counts_against_a_direction():
    own = effects(EACH, spread=0)
    alike = Effects.of(own.rows, own.number, own.half, np.ones(len(own.rows)))
    assert figures([alike, noise()], CEILING)["found"] == pytest.approx(0.5)
    assert figures([alike, noise()], CEILING)["transfer"] == 1


def test_a_factor_at_the_end_of_its_range_does_nothing_alike():
    low, high = torch.tensor([0.2, 1.0, 0.3, 0.6]), torch.tensor([0.8, 1.0, 0.0, 0.9])
    off = outside(torch.tensor([[[0.5, 1.0, 0.3, 0.5]]]), torch.stack([low, high])[None, None])
    assert off[0, 0].tolist() == pytest.approx([0, 0, 0, 0.1])


def test_hardly_any_effect_is_no_selective_effect():
    assert found(1e-3 * EACH, spread=0)["found"] < 0.01


def test_two_fits_are_compared_whatever_their_order_and_sign():
    own, other = effects(EACH), effects(-EACH[[1, 0, 3, 2]], seed=1)
    assert figures([own, noise(), other], CEILING)["stability"] > 0.98
    assert figures([own, noise(), noise(4)], CEILING)["stability"] < 0.9


def test_one_direction_alone_has_no_diversity():
    assert "direction_diversity" not in found(EACH[:1])
