"""What shifted noise does: kept conditions, curves, sets, typicality."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import PlantedData, in_parts, plant

from latentbench.types import Samples
from metrics.codes.typicality import Typicality
from metrics.edits.retention import Curve, Retention, falling
from metrics.sets.saturation import Saturation
from metrics.sets.shifted_set import ShiftedSet, set_change

N = 24
GRID = (0.1, 0.5, 1.0)


def wanted():
    return (PlantedData().batch("test", range(N)).factors > 0.5).float() * 0.8 + 0.1


def cases(change, shift="mean") -> list[Samples]:
    """Return one set of samples per strength; `change(factors, r)` is what the model makes."""
    factors = wanted()
    ids = tuple(f"seed/{k:03d}" for k in range(N))
    return [
        Samples(
            ids,
            plant(change(factors, r))[:, None],
            (f"{shift} {r:g}",) * N,
            sources=plant(factors),
            strengths=torch.full((N, 1), r),
            wanted=factors[:, None],
        )
        for r in GRID
    ]


def keeps(factors, r):
    return factors


def forgets(factors, r):
    """The output no longer depends on the caption."""
    return factors.roll(1, 0) if r > 0.3 else factors


def collapses(factors, r):
    """All seeds give one picture."""
    return factors[:1].expand_as(factors) if r > 0.3 else factors


def opposite(factors, r):
    return 1 - factors


def scored(surroundings, *sets):
    metric = Retention()
    metric.prepare(surroundings)
    for samples in sets:
        metric.update(samples)
    return metric.compute()


class TestRetention:
    def test_best_worst_trap(self, surroundings):
        best = scored(surroundings, *cases(keeps))
        assert best["robustness_zoo1"].value == best["area_zoo1/mean"].value == 1
        assert best["break_shift_zoo1/mean"].value is None
        assert "kept at every shift" in best["break_shift_zoo1/mean"].note
        assert best["cond_margin_zoo1"].value == pytest.approx(0, abs=1e-6)
        worst = scored(surroundings, *cases(opposite))
        assert worst["cond_keep_zoo1/mean 1"].value == pytest.approx(-1)
        assert worst["robustness_zoo1"].value == pytest.approx(0.05)  # the triangle from (0, 1)
        for forgotten in (forgets, collapses):
            trap = scored(surroundings, *cases(forgotten))
            assert trap["cond_keep_zoo1/mean 1"].value == pytest.approx(0, abs=0.15)
            assert "unshifted: 1.00 of the caption, 0.5" in trap["cond_keep_zoo1/mean 1"].note

    def test_break_is_where_the_curve_crosses(self, surroundings):
        found = scored(surroundings, *cases(forgets))
        keep = found["cond_keep_zoo1/mean 0.5"].value
        expected = 0.1 + 0.1 / (1 - keep) * 0.4
        assert found["break_shift_zoo1/mean"].value == pytest.approx(expected, rel=0.05)
        assert found["break_shift_zoo1/mean"].low < expected < found["break_shift_zoo1/mean"].high

    def test_the_index_is_the_mean_over_shifts(self, surroundings):
        both = [*cases(keeps, "blur"), *cases(opposite)]
        assert scored(surroundings, *both)["robustness_zoo1"].value == pytest.approx(1.05 / 2)

    def test_one_seed_has_no_other_captions(self, surroundings):
        found = scored(surroundings, *(s.rows([0]) for s in cases(keeps)))
        assert found["robustness_zoo1"].value is None and found["cond_share_zoo1"].value == 1

    @pytest.mark.parametrize("unshifted", ["opposite", "others", "one"])
    def test_a_model_that_never_kept_its_condition_is_no_robust_one(self, surroundings, unshifted):
        """Trap: as shifted samples fit the caption no worse than the unshifted ones do."""
        sets = []
        for s in cases(keeps):
            wrong = {
                "opposite": plant(1 - wanted()),
                "others": s.sources.roll(1, 0),
                "one": s.sources[:1].expand_as(s.sources),
            }[unshifted]
            sets.append(replace(s, outputs=wrong[:, None], sources=wrong))
        found = scored(surroundings, *sets)
        for name in ("robustness_zoo1", "area_zoo1/mean", "cond_keep_zoo1/mean 1"):
            assert found[name].value is None and "no condition to lose" in found[name].note

    def test_order_and_split_change_no_byte(self, surroundings):
        sets = cases(forgets)
        order = torch.randperm(N).tolist()
        one = scored(surroundings, *sets)
        other = Retention()
        other.prepare(surroundings)
        for samples in reversed(sets):
            in_parts(other, samples.rows(order), [7, 9])
        assert other.compute() == one

    def test_falling_is_isotonic_regression(self):
        from sklearn.isotonic import IsotonicRegression

        values = np.random.default_rng(0).uniform(size=(5, 7))
        fit = IsotonicRegression(increasing=False).fit_transform
        np.testing.assert_allclose(falling(values), [fit(range(7), v) for v in values])

    def test_a_curve_through_written_points(self):
        curve = Curve(np.array([0.5, 1.0]), np.array([[0.95, 0.65], [1.2, 1.1]]))
        assert curve.area == pytest.approx([0.25 * (1.95 + 1.6), 1])
        assert curve.breaks == pytest.approx([0.5 + 0.05 / 0.3 * 0.5, np.inf])


class TestShiftedSet:
    def features(self, seed=0, n=60, d=4):
        return np.random.default_rng(seed).normal(size=(n, d))

    def change(self, shifted, plain):
        return set_change(shifted, plain, self.features(9, 500), [f"{k:03d}" for k in range(60)])

    def test_best_worst_trap(self):
        plain = self.features()
        same = {k: s.value for k, s in self.change(plain, plain).items()}
        assert same == {"kd_delta": 0, "fd_delta": 0, "diversity_ratio": 1}
        far = self.change(plain + 2, plain)
        assert far["kd_delta"].low > 0 and far["fd_delta"].value == pytest.approx(16, rel=0.2)
        collapsed = self.change(0.1 * plain, plain)
        assert collapsed["diversity_ratio"].value == pytest.approx(0.1)
        assert collapsed["kd_delta"].value > 0 and collapsed["fd_delta"].value > 0

    def test_it_is_the_difference_of_kernel_distances(self):
        from metrics.sets.kernel import kernel_distance

        plain, shifted, real = self.features(), self.features(1) + 0.5, self.features(9, 500)
        ids, others = ([f"{p}{k:03d}" for k in range(n)] for p, n in (("a", 60), ("r", 500)))
        one, other = (kernel_distance(x, ids, real, others) for x in (shifted, plain))
        assert self.change(shifted, plain)["kd_delta"].value == pytest.approx(one - other)

    def test_each_case_has_its_figures(self, surroundings):
        metric = ShiftedSet(reference_n=100)
        metric.prepare(surroundings)
        for samples in (*cases(keeps), *cases(opposite, "sign")):
            metric.update(samples)
        found = metric.compute()
        assert found["kd_delta_zoo1/mean 0.5"].value == pytest.approx(0, abs=1e-9)
        assert found["kd_delta_zoo1/sign 1"].value != 0
        assert found["diversity_ratio_zoo1/mean 1"].value == pytest.approx(1)


class TestTypicality:
    def scored(self, z):
        metric = Typicality()
        ids = tuple(f"{k:03d}" for k in range(len(z)))
        metric.update(Samples(ids, torch.zeros(len(z), 1, 3, 2, 2), ("all",) * len(z), noise=z))
        return {name: score.value for name, score in metric.compute().items()}

    def test_true_noise_and_a_slight_mean(self):
        z = torch.randn(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        found = self.scored(z)
        assert found["typical_mean"] == pytest.approx((2 / np.pi) ** 0.5, abs=0.15)
        assert abs(found["typical_norm"]) < 0.25 and abs(found["typical_lag1"]) < 0.25
        moved = self.scored(z + 0.1)
        assert moved["typical_mean"] == pytest.approx(0.1 * 3072**0.5, abs=0.3)
        assert self.scored(1.1 * z)["typical_norm"] == pytest.approx(
            0.21 * (3072 / 2) ** 0.5, abs=0.4
        )
        flat = z.clone()
        flat[..., 1:] = z[..., :-1]
        assert self.scored((z + flat) / 2**0.5)["typical_lag1"] > 20


def test_saturation_counts_what_the_clamp_hides():
    images = torch.zeros(4, 1, 3, 4, 4)
    images[:, :, 0] = 1.0
    metric = Saturation()
    ids = tuple("abcd")
    metric.update(Samples(ids, images, ("x",) * 4, sources=torch.zeros(4, 3, 4, 4)))
    metric.update(Samples(("e",), images[:1], ("x",), sources=images[0]))
    assert metric.compute()["saturated"].value == pytest.approx((4 / 3) / 5)
