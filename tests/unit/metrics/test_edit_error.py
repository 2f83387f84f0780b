"""Distance to the answer: best, worst, traps, on images that hold their factors."""

from dataclasses import replace

import pytest
import torch
from planted import PlantedJudge, plant
from test_editing import (
    GLASSES,
    SHARES,
    N,
    edited,
    everything,
    nothing,
    put_on,
    scored,
)

from latentbench.data.faces import FACTOR_NAMES
from latentbench.types import Samples
from latentbench.zoo.answers import factor_distance, without_ghosts
from latentbench.zoo.judges import reliability
from metrics.edits.all_asked import AllAsked
from metrics.edits.edit_error import EditError
from metrics.edits.edit_error_image import EditErrorImage

SMILE = FACTOR_NAMES.index("smile")


def asked(change, target=GLASSES, goal=1.0, **more) -> Samples:
    """Return an edit whose answer is `goal` for all outputs; the last one counts."""
    samples = edited(change)
    factors = samples.factors.clone()
    factors[:, SMILE] = 0.0
    wanted, answer = factors.clone(), factors.clone()
    wanted[:, target], answer[:, target] = 1.0, goal
    outputs = torch.stack([plant(change(factors, s)) for s in (*SHARES.tolist()[:-1], 1.0)], 1)
    known = {
        "outputs": outputs,
        "sources": plant(factors),
        "reconstructions": plant(factors),
        "factors": factors,
        "wanted": wanted[:, None].repeat(1, len(SHARES), 1),
        "truths": plant(answer)[:, None].repeat(1, len(SHARES), 1, 1, 1),
    } | more
    return replace(samples, **known)


def ghost(factors, share):
    return put_on(factors, share / 2)


def half_smile(factors, share):
    after = factors.clone()
    after[:, SMILE] = share / 2
    return after


def on_every_other(factors, share):
    after = put_on(factors, share)
    after[::2] = factors[::2]
    return after


def other_face(factors, share):
    after = put_on(factors, share)
    after[:, :10] = (factors[:, :10] + 0.5) % 1
    return after


def both(surroundings, samples):
    """Return the error in factors and in the image."""
    found = [scored(m, surroundings, samples) for m in (EditError(), EditErrorImage())]
    return found[0]["edit_error_zoo1"], found[1]["edit_error_image"]


def test_best_worst_trap(surroundings):
    assert both(surroundings, asked(put_on)) == pytest.approx((0, 0), abs=1e-4)
    assert both(surroundings, asked(nothing)) == pytest.approx((1, 1))
    assert min(both(surroundings, asked(everything))) > 1  # the target is right, the rest is not
    assert min(both(surroundings, asked(other_face))) > 1


def test_no_reward_for_ghosts(surroundings):
    """Half-visible glasses on everybody are no better than none; on half of them, half as far."""
    assert both(surroundings, asked(ghost))[0] == pytest.approx(1)
    assert both(surroundings, asked(on_every_other)) == pytest.approx((0.5, 0.5), abs=0.01)


def test_half_of_a_graded_factor_is_a_whole_answer(surroundings):
    samples = asked(half_smile, SMILE, 0.5)
    assert both(surroundings, samples) == pytest.approx((0, 0), abs=1e-4)


def test_what_inversion_loses_is_a_column_of_its_own(surroundings):
    """On the scale of the edit's error: the reconstruction's distance to the source."""
    far = other_face(asked(nothing).factors, 0.0)
    samples = asked(put_on, reconstructions=plant(far))
    values = scored(EditError(), surroundings, samples)
    assert values["edit_error_zoo1"] == pytest.approx(0, abs=1e-6)
    weights = reliability("zoo1")
    expected = 0.5 * (weights[:10].sum() / weights[GLASSES]) ** 0.5
    assert values["inversion_error_zoo1"] == pytest.approx(float(expected), rel=1e-4)
    image = scored(EditErrorImage(), surroundings, samples)
    assert image["inversion_error_image"] > 1
    kept = scored(EditErrorImage(), surroundings, asked(put_on))
    assert kept["inversion_error_image"] == pytest.approx(0, abs=1e-4)


def test_the_judges_own_bias_cancels(surroundings):
    class Biased(PlantedJudge):
        def factors(self, images):
            return 0.5 * super().factors(images) + 0.2

    biased = replace(surroundings, judge=lambda name, device: Biased(name))
    assert both(biased, asked(put_on))[0] == pytest.approx(0, abs=1e-6)
    assert both(biased, asked(nothing))[0] == pytest.approx(1)


def test_a_factor_that_the_judge_reads_badly_counts_for_less(surroundings):
    def moved(name):
        def change(factors, share):
            after, column = put_on(factors, share), FACTOR_NAMES.index(name)
            after[:, column] = (factors[:, column] + 0.5) % 1
            return after

        return scored(EditError(), surroundings, asked(change))["edit_error_zoo1"]

    weights = reliability("zoo1")[[FACTOR_NAMES.index(name) for name in ("brow", "hat")]]
    assert moved("brow") / moved("hat") == pytest.approx(float(weights[0] / weights[1]) ** 0.5)
    assert moved("brow") < 0.9 * moved("hat")


def test_it_is_a_ratio_of_sums_overall_and_per_edit(surroundings):
    """A small denominator does not rule: glasses of distance 1, smiles of distance 1/2."""
    one, other = asked(nothing), asked(half_smile, SMILE, 0.5)
    metric = EditError()
    metric.prepare(surroundings)
    metric.update(one)
    metric.update(replace(other, groups=("smile+",) * N))
    scores, weights = metric.compute(), reliability("zoo1").sqrt()
    asked_share = float(weights[GLASSES] / (weights[GLASSES] + weights[SMILE] / 2))
    assert scores["edit_error_zoo1/glasses+"].value == pytest.approx(1)
    assert scores["edit_error_zoo1/smile+"].value == pytest.approx(0, abs=1e-6)
    assert scores["edit_error_zoo1"].value == pytest.approx(asked_share, rel=1e-3)
    table = metric.table()["edit_error_zoo1"]
    assert float(table[:, -1].mean()) == pytest.approx(scores["edit_error_zoo1"].value)


def test_without_reconstructions_there_is_no_column_of_what_inversion_loses(surroundings):
    metric = EditError()
    metric.prepare(surroundings)
    for group in ("one", "other"):
        metric.update(replace(asked(put_on), groups=(group,) * N, reconstructions=None))
    assert metric.compute().keys() == {f"edit_error_zoo1{end}" for end in ("", "/one", "/other")}


def test_all_rows_count_whether_or_not_they_reach_an_effect(surroundings):
    samples = asked(on_every_other, effect=1, matched=torch.arange(N) % 2 == 1)
    assert both(surroundings, samples)[0] == pytest.approx(0.5, abs=0.01)


def test_ghosts_are_never_nearer_than_they_are():
    d = torch.linspace(0, 3, 31)
    found = without_ghosts(d, torch.ones(31))
    assert bool((found >= d).all()) and bool((found.diff() >= -1e-6).all())
    things = torch.tensor([[[True, False]]])
    ends = (torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1, 2), torch.ones(2), things)
    half = factor_distance(torch.tensor([[[0.5, 0.0]]]), *ends)
    assert float(half) == pytest.approx(1 / 2**0.5)


class TestAllAsked:
    def test_best_worst_trap(self, surroundings):
        def share(change):
            return scored(AllAsked(), surroundings, asked(change))["all_asked_zoo1"]

        assert share(put_on) == 1 and share(nothing) == 0
        assert share(on_every_other) == 0.5
        assert share(other_face) == 1  # it sees what is asked alone: no main score

    def test_one_of_two_is_not_all(self, surroundings):
        samples = asked(put_on)
        wanted = samples.wanted.clone()
        wanted[..., SMILE] = 1.0
        values = scored(AllAsked(), surroundings, replace(samples, wanted=wanted))
        assert values["all_asked_zoo1"] == 0
