"""Spread of codes: the calibration table, invariances, and what each measure cannot see."""

import numpy as np
import pytest
from planted import coded, in_parts

from metrics.codes.code_metric import jackknifed
from metrics.codes.neighbour_spread import NeighbourSpread, koleo, neighbour_spread, overlap
from metrics.codes.spread import Spread, early_enrichment, normal_values, principal, spread

D = 64


def normal(n, d=D, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def half_empty(n):
    return normal(n) * (np.arange(D) < D // 2)


def falling(n):
    return normal(n) / np.arange(1, D + 1)


def one_axis(n):
    return normal(n) * (np.arange(D) == 0)


def clusters(n):
    return np.sign(normal(n)) + 0.1 * normal(n, seed=1)


@pytest.mark.parametrize(
    ("data", "n", "eee", "vrm"),
    [
        (normal, 500, 0.209, 0.035),
        (normal, 2000, 0.105, 0.009),
        (half_empty, 500, 0.570, 0.598),
        (half_empty, 2000, 0.536, 0.587),
        (falling, 500, 0.917, 1.07),
        (falling, 2000, 0.917, 1.08),
        (one_axis, 500, (63 / 64) ** 2, 1.7),
        (clusters, 500, 0.203, 0.031),
        (clusters, 2000, 0.101, 0.008),
    ],
)
def test_calibration_at_64_dimensions(data, n, eee, vrm):
    found = spread(data(n))
    assert found["eee"] == pytest.approx(eee, abs=0.01)
    # over draws the VRM of falling variances has a standard deviation of 1.4%
    assert found["vrm"] == pytest.approx(vrm, rel=0.05, abs=0.003)


def test_best_even_variances():
    """2 d points, one each way on every axis: nothing is left to chance."""
    found = spread(np.concatenate([np.eye(8), -np.eye(8)]))
    assert found["eee"] == pytest.approx(0, abs=1e-12)
    assert found["kl_normal"] == pytest.approx(0, abs=1e-12)
    assert found["pc_ratio"] == pytest.approx(1)
    assert found["participation_ratio"] == pytest.approx(8) == found["effective_rank"]


def test_worst_one_direction():
    found = spread(one_axis(200))
    assert found["participation_ratio"] == pytest.approx(1) == found["effective_rank"]
    assert found["pc_ratio"] == 0 and not np.isfinite(found["kl_normal"])


def test_trap_a_constant_code_has_no_spread():
    found = Spread()
    found.update(coded(np.ones((30, 4))))
    assert all(s.value is None for s in found.compute().values())


def test_trap_clusters_are_seen_by_neighbours_alone():
    n, few = 400, normal(400, 8)
    pairs = np.sign(few) + 0.02 * normal(400, 8, seed=1)
    assert abs(spread(pairs)["eee"] - spread(few)["eee"]) < 0.05
    assert neighbour_spread(pairs)["koleo_ratio"] < neighbour_spread(few)["koleo_ratio"] - 1
    assert neighbour_spread(pairs)["knn_overlap"] < 0.5 * neighbour_spread(few)["knn_overlap"]
    assert n == len(few)


def test_closed_forms():
    variances = np.array([4.0, 1.0, 1.0])
    assert early_enrichment(variances) == pytest.approx(2 / 9)  # above the line: 2, 1, 0
    data = normal(20_000, 3) * np.sqrt(variances)
    found = spread(data)
    assert found["participation_ratio"] == pytest.approx(36 / 18, rel=0.03)
    assert found["kl_normal"] == pytest.approx(-0.5 * np.log(2 * 0.5 * 0.5), rel=0.05)


def test_rotation_and_scale_change_nothing():
    turn, _ = np.linalg.qr(normal(D))
    data = falling(300)
    moved = 100 * data @ turn + 5
    for name, value in spread(data).items():
        tolerance = {"vrm": 1e-6, "kl_normal": 1e-6}.get(name, 1e-9)
        assert spread(moved)[name] == pytest.approx(value, rel=tolerance), name
    for name, value in neighbour_spread(data).items():
        assert neighbour_spread(moved)[name] == pytest.approx(value, rel=1e-6), name


def test_principal_scores_have_a_total_variance_of_d():
    scores, variances = principal(normal(300, 5) * [5, 4, 3, 2, 1])
    assert scores.var(0, ddof=1).sum() == pytest.approx(5)
    assert (np.diff(variances) <= 0).all()


def test_entropy_of_a_cube_is_below_that_of_a_ball_of_the_same_variance():
    """Kozachenko and Leonenko's estimate knows that the normal law has the largest entropy."""
    values = [koleo(np.full(10, x)) for x in (1.0, np.e)]
    assert values[1] - values[0] == pytest.approx(1)
    assert (
        neighbour_spread(normal(2000, 2))["koleo_ratio"]
        > neighbour_spread(np.random.default_rng(0).uniform(size=(2000, 2)))["koleo_ratio"]
    )


def test_overlap_of_apart_and_of_equal_distances():
    x = np.random.default_rng(0).uniform(size=100)
    assert overlap(x, x) == 1 and overlap(x, x + 2) == 0


def test_equal_codes_have_no_neighbour_entropy():
    metric = NeighbourSpread()
    metric.update(coded(np.repeat(normal(20, 3), 2, 0)))
    assert metric.compute()["koleo_ratio"].value is None


def test_the_note_gives_the_normal_value_at_this_n_and_d():
    metric = Spread()
    metric.update(coded(normal(100, 6)))
    score = metric.compute()["eee"]
    floor = normal_values(spread, 100, 6)["eee"]
    assert f"N(0, I) at n=100, d=6: {floor:.4g}" in score.note
    assert score.low < score.value < score.high


def test_fewer_images_than_dimensions():
    metric = Spread()
    metric.update(coded(normal(30, 50)))
    found = metric.compute()
    assert found["kl_normal"].value is None and found["pc_ratio"].value == 0
    assert found["kl_normal"].note.endswith("undefined") and "nan" not in found["kl_normal"].note
    assert found["eee"].value is not None


@pytest.mark.parametrize("cls", [Spread, NeighbourSpread])
def test_order_and_split_of_rows_change_no_byte(cls):
    samples = coded(normal(60, 5))
    order = np.random.default_rng(3).permutation(60).tolist()
    one, other = cls(), in_parts(cls(), samples.rows(order), [7, 30])
    one.update(samples)
    assert one.compute() == other.compute()


def test_intervals_cover_the_expected_figures():
    ids = [f"{k:03d}" for k in range(100)]

    def draw(seed):
        data = normal(100, 6, seed) * [3, 2, 1, 1, 1, 0.5]
        return jackknifed(lambda keep: spread(data[keep]), ids)

    found = [draw(seed) for seed in range(60)]
    for name in ("eee", "vrm", "effective_rank", "kl_normal"):
        expected = np.mean([f[name].value for f in found])
        assert np.mean([f[name].low <= expected <= f[name].high for f in found]) > 0.85, name
