"""The Frechet distance's two forms, its floor, its extrapolation, and its state."""

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance
from planted import D, PlantedData, PlantedJudge, outputs_of

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.metric import Surroundings
from metrics.jackknife import groups
from metrics.networks.reader import Reader
from metrics.sets.clip_fid import ClipFrechetDistance
from metrics.sets.fd_dinov2 import FrechetDINOv2
from metrics.sets.fid import FrechetInceptionDistance
from metrics.sets.frechet import FrechetDistance, GaussianPair, GramPair, distance, floor, pair
from metrics.sets.frechet_infinity import FrechetInfinity, frechet_infinity
from metrics.sets.moments import gaussian_distance, root


def spectrum(n, d=40, seed=0, shift=0.0):
    """Features whose variances fall as those of an image network do."""
    scale = (1 + np.arange(d)) ** -0.5
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def names(n, prefix="x"):
    return [f"{prefix}{k:04d}" for k in range(n)]


def by_clean_fid(a, b):
    return frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


@pytest.mark.parametrize(("n", "m"), [(20, 30), (30, 200), (200, 30), (150, 200)])
def test_both_forms_equal_clean_fid(n, m):
    a, b = spectrum(n, shift=0.1), spectrum(m, seed=1)
    form = GaussianPair if min(n, m) > 40 else GramPair
    assert isinstance(pair((a, names(n)), (b, names(m))), form)
    assert distance(a, b) == pytest.approx(by_clean_fid(a, b), rel=1e-6)


@pytest.mark.parametrize("n", [30, 150])
def test_groups_left_out_give_the_distance_of_what_stays(n):
    a, b, kept = spectrum(n), spectrum(2 * n, seed=1, shift=0.2), [0, 2, 3, 7]
    both = pair((a, names(n)), (b, names(2 * n)))
    rest = [x[np.isin(groups(names(len(x))), kept)] for x in (a, b)]
    assert both.distance(kept) == pytest.approx(distance(*rest), rel=1e-9)


def test_gaussians_in_closed_form():
    """Of commuting covariances: |m1 - m2|^2 + sum (sqrt l1 - sqrt l2)^2; singular ones too."""
    first = np.arange(3.0), np.diag([4.0, 1.0, 0.0])
    second = np.zeros(3), np.diag([1.0, 0.0, 9.0])
    assert gaussian_distance(first, second) == pytest.approx(5 + 1 + 1 + 9)
    assert gaussian_distance(second, first) == pytest.approx(16)


def test_root_of_a_singular_covariance():
    x = spectrum(200, d=6) @ np.random.default_rng(0).normal(size=(6, 20))
    covariance = np.cov(x, rowvar=False)
    assert root(covariance).shape == (20, 6)
    assert root(covariance) @ root(covariance).T == pytest.approx(covariance, abs=1e-9)


@pytest.mark.parametrize("n", [30, 150])
def test_best_a_set_to_itself_is_zero(n):
    a = spectrum(n)
    assert distance(a, a[::-1]) == pytest.approx(0, abs=1e-7)


def test_floor_is_what_equal_laws_score():
    pairs = [(spectrum(120, 8, 2 * k), spectrum(200, 8, 2 * k + 1)) for k in range(150)]
    measured = np.mean([distance(a, b) for a, b in pairs])
    assert floor(np.diag(1 / (1 + np.arange(8.0))), 120, 200) == pytest.approx(measured, rel=0.1)


def test_extrapolation_comes_nearer_to_the_truth():
    """N(0, I) against N(0.1, I) in 8 dimensions is 0.08, the mean over a few sets."""
    random, real = np.random.default_rng(0), np.random.default_rng(1).normal(size=(20_000, 8))
    sets = [random.normal(size=(400, 8)) + 0.1 for _ in range(8)]
    plain = np.mean([distance(a, real) for a in sets])
    extrapolated = np.mean([frechet_infinity(a, real, subsets=2) for a in sets])
    assert plain > 0.15
    assert extrapolated == pytest.approx(0.08, abs=0.03)


# ---------------------------------------------------------------- the metric


def around(judge=PlantedJudge):
    return Surroundings(
        PlantedData(), torch.device("cpu"), Cache(None), judge=lambda name, _: judge(name)
    )


def images(n):
    return PlantedData().batch("test", range(n)).images


def measured(parts, surroundings, held=FrechetDistance.held, **settings):
    metric = FrechetDistance(reference_n=400, **settings)
    metric.held = held
    metric.prepare(surroundings)
    for part in parts:
        metric.update(part)
    return metric


@pytest.fixture(scope="module")
def whole():
    return outputs_of(images(120))


def test_sums_of_many_images_give_the_distance_of_the_features(surroundings, whole):
    (exact,) = measured([whole], surroundings).compute().values()
    parts = [whole.rows(range(k, k + 30)) for k in (0, 30, 60, 90)]
    metric = measured(parts, surroundings, held=50)
    (summed,) = metric.compute().values()
    assert len(metric.seen) == 0 or len(metric.seen) <= 50
    assert (summed.value, summed.n) == (pytest.approx(exact.value, rel=1e-9), exact.n)
    assert summed.low < exact.value < summed.high


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_shards_of_sums_agree_to_rounding(surroundings, whole, order):
    parts = [whole.rows(range(0, 55)), whole.rows(range(55, 75)), whole.rows(range(75, 120))]
    expected = measured([whole], surroundings, held=10).compute()["fd_zoo1"]
    shards = [measured([part], surroundings, held=30) for part in parts]  # one still has its rows
    merged = measured([], surroundings, held=10)
    for k in order:
        merged.merge_state(shards[k])
    found = merged.compute()["fd_zoo1"]
    assert (found.value, found.n) == (pytest.approx(expected.value, rel=1e-9), expected.n)
    assert found.low == pytest.approx(expected.low, rel=1e-9)


def test_other_settings_do_not_merge(surroundings, whole):
    metric = measured([], surroundings)
    with pytest.raises(BadInput, match=r"FrechetDistance.*k?reference_n is 400, got 300"):
        other = FrechetDistance(reference_n=300)
        other.prepare(surroundings)
        metric.merge_state(other)
    other = FrechetDistance(reference_n=400, extractor="zoo2")
    other.prepare(surroundings)
    with pytest.raises(BadInput, match=r"extractor is 'zoo1', got 'zoo2'.*weights is"):
        metric.merge_state(other.state())


def test_a_value_below_two_images_per_dimension_only_if_asked(surroundings, whole):
    few = whole.rows(range(D))
    assert measured([few], surroundings).compute()["fd_zoo1"].value is None
    found = measured([few], surroundings, per_dimension=0.0).compute()["fd_zoo1"]
    assert found.value > 0 and "compare kernel" in found.note


@pytest.mark.parametrize("cls", [FrechetInceptionDistance, ClipFrechetDistance, FrechetDINOv2])
@pytest.mark.parametrize(("least", "there"), [(2.0, False), (0.0, True)])
def test_the_published_distances_can_be_asked_as_well(surroundings, whole, cls, least, there):
    metric = cls(reference_n=400, per_dimension=least)
    metric.surroundings, metric.network = surroundings, Reader("zoo1", surroundings)
    metric.update(whole.rows(range(D)))
    assert (metric.compute()[metric.column].value is not None) == there


def test_infinity_refuses_small_sets(surroundings, whole):
    for n in (4 * D - 1, 4 * D):
        metric = FrechetInfinity(reference_n=400)
        metric.prepare(surroundings)
        metric.update(whole.rows(range(n)))
        found = metric.compute()["fd_infinity_zoo1"]
        assert (found.value is None) == (n < 4 * D)
        assert f"at least {4 * D}" in found.note or "repeat over seeds" in found.note


def test_metrics_of_one_judge_read_an_image_once(whole):
    class Counting(PlantedJudge):
        images_read = 0

        def features(self, images):
            Counting.images_read += len(images)
            return super().features(images)

    surroundings = around(Counting)
    for _ in range(2):
        measured([whole], surroundings)
    assert Counting.images_read == 128  # 120, the last batch of 16 padded
