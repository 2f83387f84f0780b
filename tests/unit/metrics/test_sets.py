from dataclasses import replace

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance
from cleanfid.fid import kernel_distance as clean_kernel_distance
from planted import D, PlantedData, outputs_of
from torchmetrics.image.fid import FrechetInceptionDistance

from latentbench.cache import Cache
from latentbench.metric import Surroundings
from latentbench.types import Samples
from metrics.jackknife import groups
from metrics.sets.frechet import FrechetDistance, distance, frechet_score
from metrics.sets.kernel import KernelDistance, kernel_distance, kernel_score
from metrics.sets.kernel_subsets import SubsetKernelDistance, subset_kernel_distance


def normal(n, d=4, shift=0.0, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) * scale + shift


def names(n, prefix="x"):
    return [f"{prefix}{k}" for k in range(n)]


def real(start, n):
    return PlantedData().batch("test", range(start, start + n)).images


def score(metric, surroundings, images):
    metric.prepare(surroundings)
    metric.update(outputs_of(images))
    (value,) = metric.compute().values()
    return value


# ---------------------------------------------------------------- the distances themselves


def test_frechet_of_two_gaussians_is_analytic():
    """N(0, I) against N(m, s^2 I): |m|^2 + d (s - 1)^2."""
    a, b = normal(40_000), normal(40_000, shift=0.5, scale=2.0, seed=1)
    assert distance(a, b) == pytest.approx(4 * 0.25 + 4 * 1.0, rel=0.02)


def test_frechet_equals_the_published_codes():
    a, b = normal(300), normal(200, shift=0.3, seed=1)
    clean = frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    theirs = FrechetInceptionDistance(feature=Features(), normalize=True)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(a), real=False)
    theirs.update(torch.from_numpy(b), real=True)
    assert distance(a, b) == pytest.approx(clean, rel=1e-6)
    assert distance(a, b) == pytest.approx(float(theirs.compute()), abs=1e-4)


class Features(torch.nn.Module):
    num_features = 4

    def forward(self, x):
        return x


def test_kernel_distance_equals_clean_fid_on_whole_sets():
    a, b = normal(50), normal(50, shift=0.3, seed=1)
    ours = kernel_distance(a, names(50), b, names(50, "y"))
    assert ours == pytest.approx(clean_kernel_distance(a, b, 1, 50), rel=1e-9)


def test_kernel_distance_of_subsets_equals_clean_fid_with_its_seed():
    a, b = normal(50), normal(40, shift=0.3, seed=1)
    np.random.seed(7)
    theirs = clean_kernel_distance(a, b, 5, 30)
    assert subset_kernel_distance(a, b, 5, 30, seed=7) == pytest.approx(theirs, rel=1e-9)


def test_blocks_of_the_kernel_change_nothing(monkeypatch):
    first, second = (normal(50), names(50)), (normal(70, seed=1), names(70, "y"))
    whole = kernel_score(first, second)
    monkeypatch.setattr("metrics.sets.kernel.ROWS", 16)
    parts = kernel_score(first, second)
    assert [parts.value, parts.low, parts.high] == pytest.approx(
        [whole.value, whole.low, whole.high]
    )


def test_kernel_distance_is_unbiased():
    """The mean over many small samples of one law is 0, where a Frechet distance is not."""
    pairs = [(normal(8, seed=2 * k), normal(8, seed=2 * k + 1)) for k in range(400)]
    values = [kernel_distance(a, names(8), b, names(8, "y")) for a, b in pairs]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20


def test_trap_frames_of_one_path_are_not_independent():
    """Every image five times: pairs with themselves would lower the distance."""
    a, b = normal(40), normal(40, seed=1)
    again = np.repeat(a, 5, axis=0)
    ids = [i for i in names(40) for _ in range(5)]
    assert kernel_distance(again, ids, b, names(40, "y")) == pytest.approx(
        kernel_distance(a, names(40), b, names(40, "y"))
    )
    assert kernel_score((again, ids), (b, names(40, "y"))).n == 40


@pytest.mark.parametrize("kind", [frechet_score, kernel_score])
def test_interval_covers_the_expected_figure(kind):
    found = [
        kind(
            (normal(60, shift=0.4, seed=k), names(60)), (normal(60, seed=1000 + k), names(60, "y"))
        )
        for k in range(100)
    ]
    expected = np.mean([s.value for s in found])
    covered = np.mean([s.low <= expected <= s.high for s in found])
    assert covered > 0.88


def test_groups_keep_images_together():
    ids = ["b", "a", "b", "c"]
    assert groups(ids, 3).tolist() == [1, 0, 1, 2]


# ---------------------------------------------------------------- the metrics


@pytest.mark.parametrize("metric", [FrechetDistance, KernelDistance])
def test_distance_grows_with_damage(surroundings, metric):
    images = real(0, 200)
    values = []
    for noise in (0.0, 0.2, 0.5):
        worse = (images + noise * torch.randn_like(images)).clamp(-1, 1)
        values.append(score(metric(reference_n=400), surroundings, worse).value)
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("metric", [FrechetDistance, KernelDistance])
def test_worst_and_trap_collapse_is_far(surroundings, metric):
    """A generator that repeats one perfect image scores badly."""
    good = score(metric(reference_n=400), surroundings, real(0, 100))
    one = score(metric(reference_n=400), surroundings, real(0, 1).expand(100, -1, -1, -1))
    assert one.value > good.value + 10 * abs(good.high - good.value)


def test_frechet_refuses_fewer_than_two_images_per_dimension(surroundings):
    found = score(FrechetDistance(reference_n=400), surroundings, real(0, 2 * D - 1))
    assert found.value is None and f"at least {2 * D} needed" in found.note
    found = score(FrechetDistance(reference_n=400), surroundings, real(0, 2 * D))
    assert found.value is not None and found.low is None and "no interval" in found.note
    found = score(KernelDistance(reference_n=400), surroundings, real(0, 2))
    assert found.value is not None


def test_note_gives_the_floor_and_warns_near_it(surroundings):
    found = score(FrechetDistance(reference_n=400), surroundings, real(0, 100))
    assert "real against real at this n" in found.note and "compare kernel" in found.note
    assert (
        "real against real"
        in score(KernelDistance(reference_n=400), surroundings, real(0, 100)).note
    )


def test_floor_is_the_formula_alone_where_the_split_is_small(surroundings):
    small = Surroundings(
        PlantedData(count=100), torch.device("cpu"), Cache(None), judge=surroundings.judge
    )
    note = score(FrechetDistance(), small, real(0, 100)).note
    assert note.startswith("floor of equal Gaussians") and "compare kernel" in note


def test_reference_features_are_cached_by_content(tmp_path, surroundings):
    cached = Surroundings(
        surroundings.dataset, torch.device("cpu"), Cache(tmp_path), judge=surroundings.judge
    )
    first = score(KernelDistance(reference_n=100), cached, real(0, 30))
    count = len(list(tmp_path.rglob("*.safetensors")))
    assert score(KernelDistance(reference_n=100), cached, real(0, 30)) == first
    assert len(list(tmp_path.rglob("*.safetensors"))) == count
    score(KernelDistance(reference_n=100, extractor="zoo2"), cached, real(0, 30))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2 * count


def test_rows_that_miss_the_matched_effect_are_left_out(surroundings):
    images = real(0, 40)
    images[:10] = 1.0
    matched = torch.arange(40) >= 10
    metric = KernelDistance(reference_n=400)
    metric.prepare(surroundings)
    metric.update(outputs_of(images, main=0, matched=matched))
    (found,) = metric.compute().values()
    assert found.n == 30 and "10 of 40 rows" in found.note
    assert found.value < 0.1


def test_nothing_to_measure_is_no_figure(surroundings):
    metric = KernelDistance(reference_n=400)
    metric.prepare(surroundings)
    metric.update(outputs_of(real(0, 3), main=0, matched=torch.zeros(3, dtype=torch.bool)))
    (found,) = metric.compute().values()
    assert found.value is None and found.n == 0 and "3 of 3" in found.note


def test_subsets_have_no_interval_and_say_why(surroundings):
    metric = SubsetKernelDistance(reference_n=400, subsets=3, subset_size=20)
    found = score(metric, surroundings, real(0, 40))
    assert found.low is None and "share images" in found.note


def test_an_output_and_its_own_source_are_no_pair_whatever_images_are_called(surroundings):
    """Images of a folder are called by their files' names, and not by their numbers."""

    class Named(PlantedData):
        def batch(self, split, indices):
            batch = super().batch(split, indices)
            return replace(batch, ids=tuple(f"{k:04d}.png" for k in indices))

    def copies(data):
        metric = KernelDistance(reference_n=40)
        metric.prepare(replace(surroundings, dataset=data))
        batch = data.batch("test", range(40))
        images, groups = batch.images[:, None], ("all",) * 40
        metric.update(Samples(batch.ids, images, groups))
        return metric.compute()["kd_zoo1"].value

    assert copies(Named(40)) == pytest.approx(copies(PlantedData(40)))
