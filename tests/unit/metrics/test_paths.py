import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import PlantedData, plant

from latentbench.data.faces import FACTOR_NAMES
from latentbench.errors import BadInput, NotMeasurable
from latentbench.sampling.linear import slerp
from latentbench.types import Capability, Samples
from metrics.paths.factor_path import FactorPath, ordered
from metrics.paths.frechet_inner import InnerFrechetDistance
from metrics.paths.istd import ISTD
from metrics.paths.kernel_inner import InnerKernelDistance
from metrics.paths.path import PathSmoothness, gini
from metrics.paths.path_ends import PathEnds
from metrics.paths.path_error import PathError
from metrics.paths.path_error_image import PathErrorImage
from metrics.paths.projection import InnerProjection

N, T = 12, 11
TIMES = torch.linspace(0, 1, T)
F = len(FACTOR_NAMES)


def paths(frames) -> Samples:
    ids = tuple(f"path/{k:03d}" for k in range(len(frames)))
    return Samples(ids, frames, ("noise",) * len(ids))


def scored(metric, frames, surroundings=None):
    if surroundings is not None:
        metric.prepare(surroundings)
    metric.update(paths(frames))
    return {name: score.value for name, score in metric.compute().items()}


def ends(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, N, 3, 16, 16, generator=generator) * 0.15


def blend(times):
    a, b = ends()
    t = times.reshape(1, -1, 1, 1, 1)
    return ((1 - t) * a[:, None] + t * b[:, None]).clamp(-1, 1)


class TestISTD:
    def test_equal_arc_of_the_identity_generator_is_best(self):
        """Of equal norms the steps are equal; of any two Gaussian noises nearly so."""
        a, b = ends()
        assert scored(ISTD(), slerp(a, b, TIMES).float())["istd_cv"] < 0.03
        norms = [x.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1) for x in (a, b)]
        values = scored(ISTD(), slerp(a, b * norms[0] / norms[1], TIMES).float())
        assert values["istd_cv"] < 1e-5
        assert values["step_max_ratio"] == pytest.approx(1, abs=1e-5)
        assert values["straightness"] == pytest.approx(math.pi / 2 / math.sqrt(2), abs=0.03)

    def test_a_jump_is_worst(self):
        jump = (TIMES > 0.5).float()
        values = scored(ISTD(), blend(jump))
        steps = T - 1
        assert values["istd_cv"] == pytest.approx(math.sqrt(steps - 1), rel=1e-5)
        assert values["step_max_ratio"] == pytest.approx(steps, rel=1e-5)

    def test_trap_a_constant_path_is_no_smooth_path(self):
        values = scored(ISTD(), blend(torch.zeros(T)))
        assert values["istd"] == values["step_mean"] == values["end_dist"] == 0
        assert values["istd_cv"] is None and values["straightness"] is None

    def test_equal_to_numpy(self):
        frames = blend(TIMES**2)
        x = (frames.double().numpy() + 1) / 2
        steps = np.sqrt(((x[:, 1:] - x[:, :-1]) ** 2).reshape(N, T - 1, -1).sum(2))
        values = scored(ISTD(), frames)
        assert values["istd"] == pytest.approx(steps.std(1).mean(), rel=1e-9)
        assert values["istd_rms"] == pytest.approx(steps.std(1).mean() / math.sqrt(768), rel=1e-9)
        assert values["istd_cv"] == pytest.approx((steps.std(1) / steps.mean(1)).mean(), rel=1e-9)

    def test_spread_is_inside_paths_never_pooled(self):
        """Half of the paths have steps ten times as long; each is even."""
        frames = blend(TIMES)
        frames[::2] = frames[::2] * 0.1
        assert scored(ISTD(), frames)["istd"] < 1e-6

    def test_two_frames_are_no_path(self):
        with pytest.raises(BadInput, match="at least 3 frames, got 2"):
            ISTD().update(paths(blend(TIMES[:2])))


class TestPathSmoothness:
    def test_best_worst_trap(self, surroundings):
        even = scored(PathSmoothness(), blend((torch.arange(T) % 2).float()), surroundings)
        jump = scored(PathSmoothness(), blend((TIMES > 0.45).float()), surroundings)
        still = scored(PathSmoothness(), blend(torch.zeros(T)), surroundings)
        assert even["smooth_gini_zoo1"] == pytest.approx(1) == even["step_max_ratio_zoo1"]
        assert jump["smooth_gini_zoo1"] == pytest.approx(1 / (T - 1), rel=1e-5)
        assert jump["mid_balance_zoo1"] == pytest.approx(1)
        assert scored(PathSmoothness(), blend(TIMES), surroundings)["mid_balance_zoo1"] < 0.1
        assert still["consistency_zoo1"] == 0 and still["smooth_gini_zoo1"] is None

    def test_smoothness_between_a_jump_and_equal_steps(self, surroundings):
        """`smooth_norm` runs from 0 to 1 at any number of frames, `smooth_gini` from 1 / m."""
        for frames in (5, T):
            times = torch.linspace(0, 1, frames)
            jump = scored(PathSmoothness(), blend((times > 0.6).float()), surroundings)
            assert jump["smooth_norm_zoo1"] == pytest.approx(0, abs=1e-6)
            assert jump["smooth_gini_zoo1"] == pytest.approx(1 / (frames - 1), rel=1e-5)
        even = scored(PathSmoothness(), blend((torch.arange(T) % 2).float()), surroundings)
        assert even["smooth_norm_zoo1"] == pytest.approx(1)

    def test_a_detour_shows_in_the_ratio(self, surroundings):
        straight = scored(PathSmoothness(), blend((TIMES > 0.5).float()), surroundings)
        assert straight["path_ratio_zoo1"] == pytest.approx(1)
        zigzag = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1.0])
        assert scored(PathSmoothness(), blend(zigzag), surroundings)[
            "path_ratio_zoo1"
        ] == pytest.approx(9, rel=1e-4)
        fade = scored(PathSmoothness(), blend(TIMES), surroundings)
        assert fade["path_ratio_zoo1"] >= 1

    def test_timing_by_equal_steps_raises_smoothness(self, surroundings):
        """What choosing times along a path (AID's Beta law) is for: other times, same ends."""
        skewed = scored(PathSmoothness(), blend(TIMES**3), surroundings)
        timed = scored(PathSmoothness(), blend(TIMES), surroundings)
        assert timed["smooth_gini_zoo1"] > skewed["smooth_gini_zoo1"] + 0.1
        assert timed["step_max_ratio_zoo1"] < skewed["step_max_ratio_zoo1"] - 0.5

    def test_a_cross_fade_washes_out_its_middle(self, surroundings):
        a, b = ends()
        arc = slerp(a, b, TIMES).float()
        faded = scored(ISTD(), blend(TIMES), surroundings)["mid_variance"]
        kept = scored(ISTD(), arc, surroundings)["mid_variance"]
        assert faded == pytest.approx(0.5, abs=0.05)
        assert kept == pytest.approx(1, abs=0.05)

    def test_gini_is_that_of_a_double_loop_and_ignores_scale(self):
        d = torch.rand(4, 6, dtype=torch.float64)
        for value, row in zip(gini(d), d.tolist(), strict=True):
            pairs = sum(abs(x - y) for x in row for y in row)
            assert float(value) == pytest.approx(pairs / (2 * 36 * sum(row) / 6))
        assert torch.allclose(gini(d), gini(1000 * d))
        assert float(gini(torch.eye(6)[:1])[0]) == pytest.approx(5 / 6)


class TestFactorPath:
    def moved(self, times):
        a, b = torch.full((N, 1, F), 0.2), torch.full((N, 1, F), 0.8)
        return plant(a + (b - a) * times.reshape(1, -1, 1))

    def test_best_worst_trap(self, surroundings):
        even = scored(FactorPath(), self.moved(TIMES), surroundings)
        jump = scored(FactorPath(), self.moved((TIMES > 0.5).float()), surroundings)
        still = scored(FactorPath(), self.moved(torch.zeros(T)), surroundings)
        assert even["istd_factor_zoo1"] < 1e-5 and even["factor_mono_zoo1"] == 1
        assert jump["istd_factor_zoo1"] > 1
        assert jump["factor_mono_zoo1"] == pytest.approx(30 / 55)
        assert still["factor_mono_zoo1"] is None

    def test_what_is_equal_at_the_ends_should_stay(self, surroundings):
        bump = 1 - (2 * TIMES - 1).abs()
        found = scored(FactorPath(), self.moved(bump), surroundings)
        still = scored(FactorPath(), self.moved(torch.zeros(T)), surroundings)
        moving = scored(FactorPath(), self.moved(TIMES), surroundings)
        inner = float(bump[1:-1].mean()) * 0.6 / (1 / 12**0.5)
        assert found["factor_leak_zoo1"] == pytest.approx(inner, rel=0.1)
        assert still["factor_leak_zoo1"] == pytest.approx(0, abs=1e-6)
        assert moving["factor_leak_zoo1"] is None

    def test_there_and_back_is_chance(self, surroundings):
        wave = torch.tensor([0, 0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5, 1.0])
        found = scored(FactorPath(), self.moved(wave), surroundings)
        assert 0.4 < found["factor_mono_zoo1"] < 0.75

    def test_only_changed_factors_count(self):
        path = torch.tensor([[[0.0, 0.5], [0.5, 0.4], [1.0, 0.5]]])
        assert ordered(path, torch.tensor([[True, False]])).tolist() == [1.0]


class TestInnerKernelDistance:
    def real_paths(self, n=24):
        images = PlantedData().batch("test", range(5 * n)).images
        return images.unflatten(0, (n, 5))

    def test_best_worst_trap(self, surroundings):
        good = self.real_paths()
        noisy = good.clone()
        noisy[:, 1:-1] = torch.rand_like(noisy[:, 1:-1])
        best = scored(InnerKernelDistance(reference_n=400), good, surroundings)
        worst = scored(InnerKernelDistance(reference_n=400), noisy, surroundings)
        assert abs(best["kd_inner_real_zoo1"]) < 0.05 < worst["kd_inner_real_zoo1"]
        assert abs(best["kd_inner_ends_zoo1"]) < 0.05 < worst["kd_inner_ends_zoo1"]

    def test_a_cross_fade_loses(self, surroundings):
        """It wins consistency; its middle is no image of the data."""
        images = self.real_paths()
        t = torch.linspace(0, 1, 5).reshape(1, -1, 1, 1, 1)
        fade = (1 - t) * images[:, :1] + t * images[:, -1:]
        smooth = [scored(PathSmoothness(), x, surroundings) for x in (images, fade)]
        inner = [
            scored(InnerKernelDistance(reference_n=400), x, surroundings) for x in (images, fade)
        ]
        assert smooth[1]["consistency_zoo1"] < smooth[0]["consistency_zoo1"]
        assert inner[1]["kd_inner_real_zoo1"] > inner[0]["kd_inner_real_zoo1"]

    def test_frechet_form_orders_alike_and_refuses_few_frames(self, surroundings):
        good = self.real_paths()
        noisy = good.clone()
        noisy[:, 1:-1] = torch.rand_like(noisy[:, 1:-1])
        best, worst = (
            scored(InnerFrechetDistance(reference_n=400), x, surroundings) for x in (good, noisy)
        )
        for name in ("fd_inner_real_zoo1", "fd_inner_ends_zoo1"):
            assert 0 <= best[name] < worst[name] / 3
        few = InnerFrechetDistance(reference_n=400, per_dimension=20)
        few.prepare(surroundings)
        few.update(paths(good))
        score = few.compute()["fd_inner_ends_zoo1"]
        assert score.value is None and "48 frames for 6 feature dimensions" in score.note

    def test_one_path_is_too_few(self, surroundings):
        metric = InnerKernelDistance(reference_n=100)
        metric.prepare(surroundings)
        metric.update(paths(self.real_paths(1)))
        assert all(s.value is None and "needs 2 of 3" in s.note for s in metric.compute().values())


class Faces(PlantedData):
    """Draws an image that holds the factors."""

    gives = PlantedData.gives | {Capability.COUNTERFACTUALS}

    def render(self, factors):
        return plant(factors)


@pytest.fixture
def drawing(surroundings):
    return replace(surroundings, dataset=Faces())


def between(times):
    """Draw an even path's frames at other times."""
    a, b = torch.full((N, 1, F), 0.2), torch.full((N, 1, F), 0.8)
    return plant(a + (b - a) * times.reshape(1, -1, 1))


def path_error(metric, times, drawing, truths=None):
    measured = metric()
    measured.prepare(drawing)
    truths = between(TIMES) if truths is None else truths
    measured.update(replace(paths(between(times)), truths=truths))
    (score,) = measured.compute().values()
    return score.value


def test_a_path_error_is_a_ratio_of_sums(drawing):
    eased = TIMES**2 * (3 - 2 * TIMES)
    for times in (torch.zeros(T), eased):
        jump = torch.minimum(TIMES, 1 - TIMES).sum()
        expected = float((times - TIMES).abs().sum() / jump)
        assert path_error(PathError, times, drawing) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", [PathError, PathErrorImage])
class TestPathError:
    def test_the_even_path_is_0_and_a_jump_is_1(self, metric, drawing):
        assert path_error(metric, TIMES, drawing) == pytest.approx(0, abs=1e-5)
        assert path_error(metric, (TIMES > 0.5).float(), drawing) == pytest.approx(1, rel=1e-5)

    def test_standing_still_and_ends_that_are_not_asked_are_worse_than_a_jump(
        self, metric, drawing
    ):
        assert path_error(metric, torch.zeros(T), drawing) > 1.5
        assert path_error(metric, TIMES.flip(0), drawing) > 1.5

    def test_two_frames_are_no_path_and_no_faces_no_answer(self, metric, drawing):
        with pytest.raises(NotMeasurable, match="at least 3 frames, got 2"):
            path_error(metric, TIMES[:2], drawing, torch.zeros(N, 2, 3, 16, 16))
        assert "does not draw" in metric().unfed(PlantedData())
        assert metric().unfed(Faces()) is None


class TestInnerProjection:
    def found(self, frames, drawing):
        metric = InnerProjection()
        metric.prepare(drawing)
        metric.update(paths(frames))
        (score,) = metric.compute().values()
        return score

    def test_drawn_frames_are_on_it_and_others_are_not(self, drawing):
        factors = torch.rand(N, T, F, generator=torch.Generator().manual_seed(0))
        drawn, texture = plant(factors), 0.3 * torch.randn(N, T, 3, 16, 16)
        assert self.found(drawn, drawing).value == pytest.approx(0, abs=1e-3)
        textured = self.found(plant(factors, texture.clamp(-1, 1)), drawing)
        assert textured.value > 0.3
        real = float(textured.note.split()[-1])
        assert real == pytest.approx(textured.value, rel=0.1)  # real images have that texture

    def test_the_ends_do_not_count(self, drawing):
        frames = plant(torch.full((N, T, F), 0.5))
        frames[:, [0, -1]] = 1.0
        assert self.found(frames, drawing).value == pytest.approx(0, abs=1e-3)

    def test_the_projection_is_the_mean_of_what_two_judges_read(self, drawing):
        """Neither of them is the judge that measures."""
        asked = []
        spied = replace(drawing, judge=lambda n, d: asked.append(n) or drawing.judge(n, d))
        InnerProjection(extractor="zoo1").prepare(spied)
        assert asked == ["zoo1", "zoo2", "zoo3"]
        assert "does not draw" in InnerProjection().unfed(PlantedData())


class TestPathEnds:
    def test_best_worst_trap(self, surroundings):
        """Ends that are swapped are as bad as they are far; the middle does not count."""
        frames = blend(TIMES)
        ends = frames[:, [0, -1]]

        def found(frames, ends):
            metric = PathEnds()
            metric.prepare(surroundings)
            metric.update(replace(paths(frames), ends=ends))
            return {name: score.value for name, score in metric.compute().items()}

        assert set(found(frames, ends).values()) == {0}
        swapped = found(frames, ends.flip(1))
        gap = (ends[:, 0] - ends[:, 1]).square().mean((1, 2, 3)).sqrt().mean() / 2
        assert swapped["end_rmse"] == pytest.approx(float(gap), rel=1e-5)
        assert swapped["end_lpd_zoo1"] > 0
        wild = frames.clone()
        wild[:, 1:-1] = 1.0
        assert set(found(wild, ends).values()) == {0}
