"""Strips that hold the factors of their faces in the pixels, and a judge that reads them back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import PlantedJudge

from latentbench.data import faces, strips
from latentbench.data.strips_dataset import StripsDataset
from latentbench.metric import Surroundings
from latentbench.types import Samples
from metrics.networks.strip_windows import StripWindows, best_apart
from metrics.strips.kernel_windows import WindowKernelDistance, side_by_side
from metrics.strips.strip_correlation import StripCorrelation, correlation
from metrics.strips.strip_error import StripError, seam_ratio

WIDTH, ROWS = 256, 6
COLUMNS = [faces.factor_index(name) for name in strips.GLOBALS]
PARTS = ("incoherence", "sameness", "miscaption", "unrealism", "seam")


class CodedJudge(PlantedJudge):
    """Reads factors off the top row of a face's middle column block; 0 where there are none."""

    def factors(self, images):
        return ((images[:, 0, 0, 22:42] + 1) / 2).clamp(0, 1)

    def distance(self, a, b):
        return (a - b)[..., 16:48].square().mean((1, 2, 3))

    def features(self, images):
        return images.flatten(1)[:, ::512][:, :24]


def coded(factors, middles, width=WIDTH):
    """Return strips with the factors of each face written above it, on a grey ground."""
    found = torch.zeros(len(factors), 3, 64, width)
    for strip, row in enumerate(middles.tolist()):
        for face, middle in enumerate(row):
            if 10 <= middle <= width - 10:
                found[strip, :, 0, middle - 10 : middle + 10] = 2 * factors[strip, face] - 1
                found[strip, :, 8:56, middle - 8 : middle + 8] = 1
    return found


class CodedData(StripsDataset):
    """Strips of such faces, at places that are tried."""

    def batch(self, split, indices):
        known = self.describe(split, indices)
        factors, middles = self.members(split, indices)
        images = coded(factors, middles, self.width)
        return replace(super().batch(split, [indices[0]]), ids=known.ids, images=images,
                       prompts=known.prompts, factors=known.factors)  # fmt: skip

    def members(self, split, indices):
        factors, middles = super().members(split, indices)
        return factors, middles // 4 * 4

    def render_members(self, factors):
        return coded(factors[:, None], torch.full((len(factors), 1), 32), 64)


@pytest.fixture
def coded_surroundings(surroundings):
    def judges(name, device):
        return CodedJudge(name).to(device)

    return Surroundings(CodedData(), torch.device("cpu"), surroundings.cache, judge=judges)


def measured(metric, surroundings, people=None, images=None):
    """Return the figures of strips with the right things in common, unless `people` changes it."""
    data, index = surroundings.dataset, list(range(ROWS))
    batch = data.batch("test", index)
    factors, middles = data.members("judge", index)
    factors = factors.clone()
    factors[..., COLUMNS] = batch.factors[:, None]
    shown = coded(factors if people is None else people(factors), middles)
    shown = shown if images is None else images(shown)
    metric.prepare(surroundings)
    metric.update(
        Samples(batch.ids, shown[:, None], ("strips",) * ROWS, truths=batch.images[:, None],
                factors=batch.factors, prompts=batch.prompts)
    )  # fmt: skip
    scores = {
        n.removesuffix("_zoo1").removeprefix("strip_"): s for n, s in metric.compute().items()
    }
    return {name: score.value for name, score in scores.items()}


def test_windows_are_found_where_faces_are(coded_surroundings):
    data, windows = coded_surroundings.dataset, StripWindows(coded_surroundings, WIDTH)
    images, (_, middles) = data.batch("test", range(4)).images, data.members("test", range(4))
    places = windows.find(images)
    assert places.shape == (4, 4)
    for lefts, row in zip(places.tolist(), middles.tolist(), strict=True):
        assert {left + 32 for left in lefts} <= set(row)
    assert windows.cut(images, places).shape == (4, 4, 3, 64, 64)


def test_the_best_places_that_lie_apart_are_found_by_trying_all():
    cost = np.random.default_rng(0).random(12)
    found = best_apart(cost, 3, 3).tolist()
    sets = [(a, b, c) for a in range(12) for b in range(a + 3, 12) for c in range(b + 3, 12)]
    assert tuple(found) == min(sets, key=lambda s: cost[list(s)].sum())


def one(factors):
    found = factors[:, :1].expand_as(factors).clone()
    found[..., COLUMNS] = factors[..., COLUMNS]
    return found


def shuffled(factors):
    found = factors.clone()
    for k in range(factors.shape[1]):
        found[:, k, COLUMNS] = factors[:, k, COLUMNS].roll(k, 0)
    return found


def test_best_true_strips_and_worst_copies_and_strangers(coded_surroundings):
    best = measured(StripError(), coded_surroundings)
    assert best["error"] == pytest.approx(sum(best[part] for part in PARTS))
    assert best["sameness"] == pytest.approx(0, abs=0.1)
    assert best["unrealism"] == pytest.approx(0, abs=1e-3)
    assert best["incoherence"] == pytest.approx(0, abs=1e-3)
    assert best["miscaption"] == pytest.approx(0, abs=1e-3)
    assert best["global_std"] == pytest.approx(0, abs=1e-6) and best["local_std"] > 0.2
    copies = measured(StripError(), coded_surroundings, one)
    assert copies["sameness"] == pytest.approx(1, abs=1e-3)
    assert copies["local_std"] == pytest.approx(0, abs=1e-6)
    mixed = measured(StripError(), coded_surroundings, shuffled)
    assert mixed["incoherence"] == pytest.approx(1, abs=0.25)
    assert mixed["miscaption"] > 0.5 and mixed["sameness"] == pytest.approx(
        best["sameness"], abs=1e-3
    )


def test_trap_windows_without_a_face_earn_nothing(coded_surroundings):
    found = measured(StripError(), coded_surroundings, images=torch.zeros_like)
    assert found["unrealism"] > 0.5
    for part in ("incoherence", "sameness", "miscaption"):
        assert found[part] > min(1, found["unrealism"]) - 1e-6


def test_trap_two_faces_that_take_turns_are_a_third_of_copies(coded_surroundings):
    def turns(factors):
        return factors[:, [k % 2 for k in range(factors.shape[1])]]

    found = measured(StripError(), coded_surroundings, turns)
    assert found["sameness"] == pytest.approx(1 / 3, abs=0.15)


def test_seams_are_told_from_edges(coded_surroundings):
    images = torch.rand(32, 3, 64, 256, generator=torch.Generator().manual_seed(0))
    assert float(seam_ratio(images).mean()) == pytest.approx(1, abs=0.05)
    assert torch.equal(seam_ratio(torch.zeros(2, 3, 64, 256)), torch.ones(2).double())

    def cut(images):
        found = images.clone()
        found[..., 64:128] = -found[..., 64:128]
        return found - (torch.arange(256) // 64 % 2) * 0.2 * (found.abs() < 0.1)

    found = measured(StripError(), coded_surroundings, images=cut)
    assert found["seam"] > measured(StripError(), coded_surroundings)["seam"] + 0.2


def test_trap_plainness_where_windows_would_meet_earns_nothing(coded_surroundings):
    def plain(images):
        found = images.clone()
        for at in (64, 128, 192):
            found[..., at] = found[..., at - 1]
        return found

    found = measured(StripError(), coded_surroundings, images=plain)
    assert found["seam_ratio"] < 0.5 and found["seam"] == 0


def test_correlation_is_that_beyond_the_caption(coded_surroundings):
    best = measured(StripCorrelation(), coded_surroundings)
    assert best["correlation_near"] == pytest.approx(1) == best["correlation_far"]
    x = torch.randn(50, 3, 2).double().numpy()
    y = torch.randn(50, 3, 2).double().numpy()
    expected = np.mean([np.corrcoef(x[..., k].ravel(), y[..., k].ravel())[0, 1] for k in (0, 1)])
    assert correlation(x, y) == pytest.approx(expected)


def test_trap_a_plain_picture_is_not_ahead_of_true_strips(coded_surroundings):
    """It is read alike everywhere, so what agreement alone says has no direction."""
    for metric, figures in (
        (StripCorrelation, ("correlation_near", "correlation_far")), (StripError, ("global_std",)),
    ):  # fmt: skip
        best = measured(metric(), coded_surroundings)
        plain = measured(metric(), coded_surroundings, images=torch.zeros_like)
        for name in figures:
            assert plain[name] == pytest.approx(best[name], abs=1e-6)
            assert metric().figures[f"strip_{name}_zoo1"].higher_is_better is None


def test_windows_side_by_side_are_compared_with_those_of_true_strips(coded_surroundings):
    strips_ = torch.arange(2 * 3 * 64 * 256.0).reshape(2, 3, 64, 256)
    assert torch.equal(side_by_side(strips_)[1, 2], strips_[1, :, :, 128:192])
    alike = measured(WindowKernelDistance(reference_n=16), coded_surroundings)
    blank = measured(
        WindowKernelDistance(reference_n=16), coded_surroundings, images=torch.zeros_like
    )
    assert blank["kd_windows"] > alike["kd_windows"]


def test_data_without_strips_are_refused(surroundings):
    for metric in (StripError(), StripCorrelation(), WindowKernelDistance()):
        assert "strips" in metric.unfed(surroundings.dataset)
