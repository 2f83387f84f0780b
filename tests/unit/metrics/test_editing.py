import numpy as np
import pytest
import torch
from planted import PlantedData, PlantedJudge, plant
from scipy.stats import spearmanr

from latentbench.data.faces import FACTOR_NAMES, IDENTITY
from latentbench.errors import BadInput
from latentbench.metric import Surroundings
from latentbench.types import Samples
from metrics.edits.attribute_dependency import AttributeDependency, curve
from metrics.edits.leak import MOVED, Leak
from metrics.edits.monotonicity import Monotonicity, spearman
from metrics.edits.rescoring import Rescoring, selectivity
from metrics.edits.target_gain import TargetGain
from metrics.pairs.counterfactual import CounterfactualError
from metrics.pairs.identity_preservation import IdentityPreservation
from metrics.sets.kernel import KernelDistance
from metrics.sets.kernel_truths import TruthKernelDistance

N, GLASSES = 12, FACTOR_NAMES.index("glasses")
SHARES = torch.tensor([0.25, 0.5, 0.75, 1.0, 0.5])


def source_factors():
    factors = PlantedData().batch("test", range(N)).factors
    factors[:, GLASSES] = 0.0
    return factors


def edited(change, factors=None, **more) -> Samples:
    """Return an edit of glasses whose outputs are `change(factors, share)`, matched one last."""
    factors = source_factors() if factors is None else factors
    outputs = torch.stack([plant(change(factors, s)) for s in SHARES.tolist()], 1)
    wanted = factors[:, None].repeat(1, len(SHARES), 1)
    wanted[..., GLASSES] = 1.0
    perfect = torch.stack([plant(put_on(factors, s)) for s in SHARES.tolist()], 1)
    known = {
        "sources": plant(factors),
        "reconstructions": plant(factors),
        "truths": perfect,
        "strengths": 40 * SHARES.repeat(N, 1),
        "factors": factors,
        "wanted": wanted,
        "main": len(SHARES) - 1,
    } | more
    return Samples(tuple(f"i{k:03d}" for k in range(N)), outputs, ("glasses+",) * N, **known)


def put_on(factors, share):
    after = factors.clone()
    after[:, GLASSES] = share
    return after


def nothing(factors, share):
    return factors


def everything(factors, share):
    """The trap: the target is reached by moving every factor."""
    return factors + share * (1 - factors)


def backwards(factors, share):
    return put_on(factors, 1 - share)


def scored(metric, surroundings, samples):
    metric.prepare(surroundings)
    metric.update(samples)
    return {name: score.value for name, score in metric.compute().items()}


class TestTargetGain:
    def test_best_worst_trap(self, surroundings):
        def gain(change):
            return scored(TargetGain(), surroundings, edited(change))["target_gain_zoo1"]

        assert gain(put_on) == pytest.approx(0.5, abs=1e-5)
        assert gain(nothing) == pytest.approx(0, abs=1e-5)
        assert gain(everything) == pytest.approx(0.5, abs=1e-5)

    def test_wrong_way_is_negative(self, surroundings):
        factors = source_factors()
        factors[:, GLASSES] = 0.5

        def off(f, share):
            return put_on(f, 0.5 - share / 2)

        values = scored(TargetGain(), surroundings, edited(off, factors))
        assert values["target_gain_zoo1"] == pytest.approx(-0.5, abs=1e-5)

    def test_what_the_reconstruction_changed_counts(self, surroundings):
        """The user has the source, and sees the output."""
        half = plant(put_on(source_factors(), 0.5))

        def stays(factors, share):
            return put_on(factors, 0.5)

        values = scored(TargetGain(), surroundings, edited(stays, reconstructions=half))
        assert values["target_gain_zoo1"] == pytest.approx(0.5, abs=1e-6)

    def test_an_edit_that_asks_for_nothing_is_refused(self, surroundings):
        samples = edited(put_on)
        metric = TargetGain()
        metric.prepare(surroundings)
        still = samples.factors[:, None].expand_as(samples.wanted).contiguous()
        with pytest.raises(BadInput, match="equals its factors"):
            metric.update(edited(put_on, wanted=still))

    def test_a_data_set_with_other_factors_is_refused(self, surroundings):
        class Other(PlantedData):
            factor_names = ("hue",)

        other = Surroundings(
            Other(), surroundings.device, surroundings.cache, judge=surroundings.judge
        )
        with pytest.raises(BadInput, match="TargetGain reads the factors"):
            TargetGain().prepare(other)


class TestAttributeDependency:
    def test_best_worst_trap(self, surroundings):
        def dependency(change):
            return scored(AttributeDependency(), surroundings, edited(change))

        perfect, idle, trap = dependency(put_on), dependency(nothing), dependency(everything)
        assert perfect["mean_ad_zoo1"] == pytest.approx(0, abs=1e-5)
        assert perfect["max_ad_zoo1"] == pytest.approx(0, abs=1e-5)
        assert idle["mean_ad_zoo1"] == pytest.approx(0, abs=1e-5)
        assert 0.5 < trap["mean_ad_zoo1"] < trap["max_ad_zoo1"]

    def test_one_factor_that_comes_along_is_its_share_of_the_mean(self, surroundings):
        def hats_too(factors, share):
            after = put_on(factors, share)
            after[:, FACTOR_NAMES.index("hat")] = (factors[:, FACTOR_NAMES.index("hat")] + 0.2) % 1
            return after

        values = scored(AttributeDependency(), surroundings, edited(hats_too))
        assert values["mean_ad_zoo1"] == pytest.approx(values["max_ad_zoo1"] / 19, rel=1e-4)

    def test_curve_over_the_change_of_the_target(self):
        moved, others = torch.tensor([0.1, 0.2, 0.7, 9.0]), torch.tensor([1.0, 3.0, 4.0, 5.0])
        assert curve(moved, others).endswith("below 0.5: 2, below 1: 4, from 2.5: 5")


class TestRescoring:
    def test_best_worst_trap(self, surroundings):
        def rescored(change):
            return scored(Rescoring(), surroundings, edited(change))

        perfect, trap = rescored(put_on), rescored(everything)
        assert perfect["rescore_glasses_zoo1"] == pytest.approx(0.5 * 12**0.5, rel=0.1)
        assert perfect["rescore_smile_zoo1"] == pytest.approx(0, abs=1e-5)
        assert perfect["rescore_selectivity_zoo1"] == pytest.approx(1, abs=1e-4)
        assert trap["rescore_selectivity_zoo1"] < 0.2
        assert rescored(nothing)["rescore_selectivity_zoo1"] == pytest.approx(0, abs=1e-6)

    def test_changes_that_cancel_are_no_effect_of_the_edit(self):
        change = np.array([[2.0, 1.0], [2.0, -1.0], [0.5, 1.0], [0.5, 1.0]])
        edits, targets = np.array(["a", "a", "b", "b"]), np.array([0, 0, 1, 1])
        assert selectivity(change[:2], edits[:2], targets[:2]) == 1
        assert selectivity(change, edits, targets) == pytest.approx((1 + 2 / 3) / 2)


class TestLeak:
    def test_best_worst_trap(self, surroundings):
        def leak(change):
            return scored(Leak(), surroundings, edited(change))

        perfect, idle, all_of_it = leak(put_on), leak(nothing), leak(everything)
        assert perfect["leak_zoo1"] == idle["leak_zoo1"] == 0
        assert all_of_it["leak_zoo1"] > 0.2
        assert perfect["selectivity_zoo1"] == pytest.approx(1)
        assert idle["selectivity_zoo1"] is None  # nothing moves
        assert 0.5 < all_of_it["selectivity_zoo1"] < 0.8

    def test_what_inversion_loses_is_leak(self, surroundings):
        """Another person in reconstruction and edit alike is no clean edit."""

        def other(factors, share):
            after = put_on(factors, share)
            after[:, :10] = 1 - factors[:, :10]
            return after

        lost = plant(other(source_factors(), 0.0))
        samples = edited(other, reconstructions=lost)
        assert scored(Leak(), surroundings, samples)["leak_zoo1"] > 0.2

    def test_selectivity_is_a_ratio_of_sums(self, surroundings):
        """One image that hardly moves, all of it right, does not make the method selective."""

        def mixed(factors, share):
            after = factors + share * (1 - factors)
            after[0] = put_on(factors, 0.01)[0]
            return after

        metric, samples = Leak(), edited(mixed)
        value = scored(metric, surroundings, samples)["selectivity_zoo1"]
        gain, moved = (metric.measured()[k][:, -1] for k in ("selectivity_zoo1", MOVED))
        assert value == pytest.approx(float(gain.sum() / moved.sum()))
        assert (gain / moved)[0] == pytest.approx(1)
        assert value < float((gain / moved).mean()) - 0.01

    def test_changes_within_the_judges_error_count_as_none(self, surroundings):
        class Blurred(PlantedJudge):
            def factors(self, images):
                error = 0.1 * torch.sin(1e4 * images[:, 1].mean((1, 2)))[:, None]
                return (super().factors(images) + error).clamp(0, 1)

        blurred = Surroundings(
            surroundings.dataset, surroundings.device, surroundings.cache,
            judge=lambda name, device: Blurred(name),
        )  # fmt: skip

        def shift(factors, share):
            after = (factors + 0.05).clamp(max=1)
            after[:, GLASSES] = share
            return after

        values = scored(Leak(), blurred, edited(shift))
        assert values["leak_zoo1"] == 0
        assert values["leak_raw_zoo1"] == pytest.approx(0.05, abs=0.01)
        assert scored(Leak(threshold=0.1), blurred, edited(shift))["leak_zoo1"] > 0.03

    def test_note_gives_what_true_counterfactuals_read(self, surroundings):
        metric = Leak()
        metric.prepare(surroundings)
        metric.update(edited(everything))
        assert "true counterfactuals read 0" in metric.compute()["leak_zoo1"].note


class TestMonotonicity:
    def test_best_worst_trap(self, surroundings):
        def value(change):
            return scored(Monotonicity(), surroundings, edited(change))["monotonicity_zoo1"]

        def one_step(factors, share):
            return put_on(factors, 1.0)

        assert value(put_on) == pytest.approx(1)
        assert value(backwards) < 0
        assert value(nothing) == 0
        assert 0 < value(one_step) < 1

    def test_matched_output_is_no_point_of_the_curve(self, surroundings):
        """It repeats a strength of the curve; with it a perfect curve would have a tie."""
        samples = edited(put_on)
        moved = samples.outputs.clone()
        moved[:, -1] = plant(put_on(samples.factors, 0.0))
        again = Samples(samples.ids, moved, samples.groups, main=4, **{
            k: v for k, v in samples.tensors().items() if k != "outputs"})  # fmt: skip
        assert scored(Monotonicity(), surroundings, again)["monotonicity_zoo1"] == pytest.approx(1)

    def test_rows_that_miss_the_matched_effect_count_all_the_same(self, surroundings):
        metric = Monotonicity()
        metric.prepare(surroundings)
        metric.update(edited(put_on, matched=torch.zeros(N, dtype=torch.bool)))
        assert metric.compute()["monotonicity_zoo1"].n == N

    def test_equal_to_scipy(self):
        a = torch.rand(5, 7).mul(4).round()
        b = torch.rand(5, 7).mul(4).round()
        for value, x, y in zip(spearman(a, b), a, b, strict=True):
            assert float(value) == pytest.approx(spearmanr(x, y).statistic)

    def test_two_points_are_no_curve(self):
        assert spearman(torch.rand(3, 2), torch.rand(3, 2)).isnan().all()


class TestIdentity:
    def test_best_worst_trap(self, surroundings):
        def other_person(factors, share):
            after = factors.clone()
            after[:, : len(IDENTITY)] = 1 - factors[:, : len(IDENTITY)]
            return after

        def other_attributes(factors, share):
            after = factors.clone()
            after[:, len(IDENTITY) :] = 1 - factors[:, len(IDENTITY) :]
            return after

        same = scored(IdentityPreservation(), surroundings, edited(put_on))
        other = scored(IdentityPreservation(), surroundings, edited(other_person))
        dressed = scored(IdentityPreservation(), surroundings, edited(other_attributes))
        assert same["id_zoo1"] == pytest.approx(1, abs=1e-5) == dressed["id_zoo1"]
        assert other["id_zoo1"] == pytest.approx(-1, abs=1e-5)
        assert same["id_factor_error_zoo1"] == pytest.approx(0, abs=1e-6)
        assert dressed["id_factor_error_zoo1"] == pytest.approx(0, abs=1e-6)
        gap = (2 * source_factors()[:, : len(IDENTITY)] - 1).abs().mean()
        assert other["id_factor_error_zoo1"] == pytest.approx(float(gap), rel=1e-4)

    def test_note_gives_the_judges_own_error(self, surroundings):
        metric = IdentityPreservation()
        metric.prepare(surroundings)
        metric.update(edited(put_on, sources=plant(source_factors() * 0)))
        note = metric.compute()["id_factor_error_zoo1"].note
        own = float(source_factors()[:, : len(IDENTITY)].mean())
        assert note.endswith(f"the sources themselves read {own:.4g}")


class TestCounterfactualError:
    def test_best_worst_trap(self, surroundings):
        def value(change):
            return scored(CounterfactualError(), surroundings, edited(change))

        perfect, idle, wild = value(put_on), value(nothing), value(everything)
        assert perfect["counterfactual_rmse"] == perfect["counterfactual_lpd_zoo1"] == 0
        assert idle["counterfactual_ratio"] == pytest.approx(1)
        assert wild["counterfactual_ratio"] > 1
        expected = 0.5 / (3 * 16 * 16) ** 0.5
        assert idle["counterfactual_rmse"] == pytest.approx(expected, rel=1e-5)

    def test_no_ratio_where_nothing_was_asked(self, surroundings):
        samples = edited(nothing)
        same = samples.sources[:, None].expand_as(samples.truths).contiguous()
        values = scored(CounterfactualError(), surroundings, edited(nothing, truths=same))
        assert values["counterfactual_ratio"] is None and values["counterfactual_rmse"] == 0


class TestTruthKernelDistance:
    def many(self, change):
        """Return whole edits of many faces, one output each."""
        before = PlantedData().batch("test", range(120)).factors
        before[:, GLASSES] = 0.0
        after = [plant(x)[:, None] for x in (change(before, 1.0), put_on(before, 1.0))]
        ids = tuple(f"i{k:03d}" for k in range(120))
        return Samples(ids, after[0], ("glasses+",) * 120, truths=after[1])

    def value(self, metric, surroundings, change):
        metric.prepare(surroundings)
        metric.update(self.many(change))
        return next(iter(metric.compute().values()))

    def test_best_worst_trap(self, surroundings):
        perfect, idle, wild = (
            self.value(TruthKernelDistance(), surroundings, c)
            for c in (put_on, nothing, everything)
        )
        assert perfect.value == pytest.approx(0, abs=1e-9)
        assert wild.value > idle.value > perfect.value + 1e-9
        assert wild.low > 0

    def test_real_faces_are_the_wrong_reference_for_edits(self, surroundings):
        """A perfect edit has another share of glasses than real faces, and is blamed for it."""
        unfair = self.value(KernelDistance(reference_n=400), surroundings, put_on)
        fair = self.value(TruthKernelDistance(), surroundings, put_on)
        assert unfair.value > abs(fair.value)
