"""Best, worst and trap of every score of codes with known factors, and their formulas."""

from functools import partial

import numpy as np
import pytest
import torch
from planted import coded, in_parts
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from latentbench.errors import BadInput
from metrics.codes.code_metric import held_out, jackknifed, top_gap
from metrics.codes.dci import DCI, completeness, disentanglement
from metrics.codes.mig import MutualInformationGap, adjusted_mig, mig
from metrics.codes.modularity import Modularity, modularity
from metrics.codes.mutual_information import (
    by_chance,
    discretise,
    entropy,
    information_table,
    mutual_information,
)
from metrics.codes.probe import LinearProbe
from metrics.codes.sap import SeparatedAttributePredictability, sap, squared_correlations
from metrics.codes.tad import TotalAttributeDisentanglement, auroc, explained_by_another, tad

N, FACTORS = 900, 4


def factors(seed=0, n=N, f=FACTORS):
    return np.random.default_rng(seed).uniform(size=(n, f))


def noise(seed=9, d=FACTORS, n=N):
    return np.random.default_rng(seed).normal(size=(n, d))


def rotated(y):
    """Every code holds a part of every factor."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(y.shape[1], y.shape[1])))
    return (y - 0.5) @ turn


def table(z, y):
    return information_table(z, y, 20, "test")[0]


SCORES = {
    "mig": mig,
    "mig_adjusted": adjusted_mig,
    "sap": sap,
    "modularity": lambda z, y: modularity(table(z, y)),
    "tad": lambda z, y: tad(z, y, held_out([f"{k:05d}" for k in range(len(z))])).total / FACTORS,
}


@pytest.mark.parametrize("name", SCORES)
def test_best_the_factors_themselves_in_any_order_and_scale(name):
    y = factors()
    best = {"mig": 0.9, "mig_adjusted": 0.9, "sap": 0.95, "modularity": 0.97, "tad": 0.42}[name]
    assert SCORES[name](y, y) > best
    assert SCORES[name](-3 * y[:, ::-1] + 7, y) == pytest.approx(SCORES[name](y, y), abs=0.02)


@pytest.mark.parametrize("name", SCORES)
def test_worst_a_constant_code_knows_nothing(name):
    assert SCORES[name](np.ones((N, 3)), factors()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["mig", "mig_adjusted", "sap", "tad"])
def test_worst_noise_knows_next_to_nothing(name):
    assert abs(SCORES[name](noise(), factors())) < 0.03


@pytest.mark.parametrize("name", ["mig", "mig_adjusted", "sap", "tad"])
def test_trap_a_duplicated_code_is_not_apart(name):
    y = factors()
    assert SCORES[name](np.concatenate([y, y], 1), y) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_trap_a_rotation_holds_all_and_separates_nothing(name):
    y = factors()
    assert SCORES[name](rotated(y), y) < SCORES[name](y, y) - 0.15


# ---------------------------------------------------------------- formulas


def test_information_is_sklearns():
    z, y = discretise(noise(), 20), discretise(factors(), 20)
    found = mutual_information(z, y, 20)
    expected = [[mutual_info_score(a, b) for b in y.T] for a in z.T]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(entropy(y, 20), [mutual_info_score(b, b) for b in y.T], atol=1e-12)


def test_what_chance_shares_is_sklearns():
    z, y = discretise(noise(n=90), 20), discretise(factors(n=90), 6)
    expected = [
        [expected_mutual_information(contingency_matrix(a, b, sparse=True), 90) for b in y.T]
        for a in z.T
    ]
    np.testing.assert_allclose(by_chance(z, y, 20), expected, atol=1e-12)


@pytest.mark.parametrize("n", [40, 160])
def test_at_few_images_one_unrelated_code_has_no_adjusted_gap_and_a_perfect_one_all(n):
    y = factors(n=n, f=8)
    unrelated = noise(d=1, n=n)
    assert mig(unrelated, y) > 0.25 and abs(adjusted_mig(unrelated, y)) < 0.05
    assert adjusted_mig(y[:, :1], y[:, :1]) == pytest.approx(1)
    assert adjusted_mig(y, y) > mig(y, y) + 0.2  # of several, chance lifts the second best


def test_bins_are_those_of_disentanglement_lib():
    z = noise()
    for column, bins in zip(z.T, discretise(z, 20).T, strict=True):
        theirs = np.digitize(column, np.histogram(column, 20)[1][:-1])
        assert (bins == theirs - 1).all()


def test_levels_of_discrete_factors_stay_apart():
    levels = np.random.default_rng(0).integers(0, 7, (500, 1))
    assert len(np.unique(discretise(levels.astype(float), 20))) == 7
    assert mig(levels.astype(float), levels.astype(float)) == pytest.approx(1)


def test_sap_is_disentanglement_libs_covariance_formula():
    z, y = noise() + factors() @ np.ones((FACTORS, FACTORS)), factors()
    for i in range(FACTORS):
        for j in range(FACTORS):
            c = np.cov(z[:, i], y[:, j], ddof=1)
            expected = c[0, 1] ** 2 / (c[0, 0] * c[1, 1])
            assert squared_correlations(z, y)[i, j] == pytest.approx(expected)


def test_modularity_of_a_written_table():
    """Code 1 knows factor 1 alone; code 2 both alike; code 3 nothing."""
    assert modularity(np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 0.0]])) == pytest.approx(1 / 3)


def test_gap_of_one_code_is_its_own_score():
    assert top_gap(np.array([[0.4, 0.1]])).tolist() == [0.4, 0.1]


def test_auroc_is_sklearns_with_ties():
    scores = np.round(noise(), 1)
    labels = factors() > 0.3
    expected = [[roc_auc_score(b, a) for b in labels.T] for a in scores.T]
    np.testing.assert_allclose(auroc(scores, labels), expected, atol=1e-12)


def test_an_attribute_that_another_tells_is_not_captured():
    y = factors()
    y[:, 1] = y[:, 0]
    assert explained_by_another(y > 0.5)[:2] == pytest.approx([1, 1])
    found = tad(y, y, held_out([f"{k:05d}" for k in range(N)]))
    assert (found.captured, found.tried) == (FACTORS - 2, FACTORS)


@pytest.mark.parametrize("score", [mig, sap])
def test_what_does_not_belong_together_is_refused(score):
    with pytest.raises(BadInput, match="codes \\[n, d\\] and factors"):
        score(noise(n=10), factors(n=9))
    with pytest.raises(BadInput, match="finite"):
        score(np.full((10, 2), np.nan), factors(n=10))


# ---------------------------------------------------------------- importances


def test_concentration_of_written_importances():
    one_to_one = np.eye(3)[:, [2, 0, 1]]
    assert disentanglement(one_to_one) == pytest.approx(1)
    assert completeness(one_to_one) == pytest.approx(1)
    duplicated = np.concatenate([np.eye(3), np.eye(3)])
    assert disentanglement(duplicated) == pytest.approx(1)
    assert completeness(duplicated) == pytest.approx(1 - np.log(2) / np.log(6))
    assert disentanglement(np.ones((3, 3))) == pytest.approx(0, abs=1e-9)
    assert disentanglement(np.zeros((3, 3))) == pytest.approx(0, abs=1e-9)


def test_importances_weigh_codes_by_what_they_give():
    """A useless, undecided code does not lower the score of the others."""
    table = np.concatenate([np.eye(3), np.full((5, 3), 1e-6)])
    assert disentanglement(table) > 0.999


def test_dci_of_factors_noise_and_a_rotation():
    y = factors(n=240, f=2)
    values = {
        name: {k: s.value for k, s in scored(DCI(trees=30), codes, y).items()}
        for name, codes in (
            ("best", y), ("constant", np.ones((240, 2))), ("noise", noise(n=240, d=2)),
            ("rotated", rotated(y)),
        )
    }  # fmt: skip
    best, flat = values["best"], values["constant"]
    assert min(best.values()) > 0.9
    assert flat["dci_disentanglement"] == pytest.approx(0, abs=1e-9)
    assert flat["dci_informativeness"] < 0.01 and values["noise"]["dci_informativeness"] < 0.1
    assert values["rotated"]["dci_informativeness"] > 0.8
    assert values["rotated"]["dci_disentanglement"] < best["dci_disentanglement"] - 0.2


def test_factors_that_do_not_vary_count_for_nothing(surroundings):
    """Nothing can be known of them, so that knowing nothing of them is no merit and no fault."""
    y = factors(n=240, f=2)
    flat = np.full((240, 4), 0.3)
    for codes in (y, rotated(y), noise(n=240, d=2)):
        for make in (*METRICS, partial(DCI, trees=5), LinearProbe):
            alone, beside = (
                scored(make(), codes, known, surroundings)
                for known in (y, np.concatenate([y, flat], 1))
            )
            for name, score in alone.items():
                assert beside[name].value == pytest.approx(score.value, abs=1e-9), name
                told = "4 of 6 factors do not vary" in beside[name].note
                assert told or make is TotalAttributeDisentanglement, name


def test_without_a_factor_that_varies_there_is_no_figure(surroundings):
    flat = np.full((240, 2), 0.3)
    for metric in (DCI(trees=5), LinearProbe(), SeparatedAttributePredictability(), Modularity()):
        for score in scored(metric, noise(n=240, d=2), flat, surroundings).values():
            assert score.value is None and score.note


def test_wide_codes_are_reduced_and_the_note_says_so():
    y = factors(n=90, f=2)
    found = scored(DCI(trees=5, components=3), noise(n=90, d=6), y)
    assert "on 3 principal axes of 6" in found["dci_completeness"].note


# ---------------------------------------------------------------- metrics


def scored(metric, codes, y, surroundings=None):
    if surroundings is not None:
        metric.prepare(surroundings)
    metric.update(coded(codes, y))
    return metric.compute()


METRICS = (
    MutualInformationGap,
    SeparatedAttributePredictability,
    Modularity,
    TotalAttributeDisentanglement,
)


@pytest.mark.parametrize("cls", METRICS)
def test_order_and_split_of_rows_change_no_byte(cls):
    y = factors(n=120)
    samples = coded(y + 0.1 * noise(n=120), y)
    order = np.random.default_rng(3).permutation(120).tolist()
    one, other = cls(), in_parts(cls(), samples.rows(order), [7, 50])
    one.update(samples)
    assert one.compute() == other.compute()


@pytest.mark.parametrize("cls", METRICS)
def test_too_few_images_have_no_figure_or_no_interval(cls):
    y = factors(n=12)
    (first, *_) = scored(cls(), y, y).values()
    assert first.low is None and first.note
    (first, *_) = scored(cls(), y[:1], y[:1]).values()
    assert first.value is None and "needed" in first.note


def test_intervals_cover_the_expected_figures():
    def draw(seed):
        y = factors(seed, n=80, f=2)
        z = y + 0.3 * noise(1000 + seed, d=2, n=80)
        ids = [f"{k:03d}" for k in range(80)]
        return jackknifed(lambda k: {"mig": mig(z[k], y[k], 5), "sap": sap(z[k], y[k])}, ids)

    found = [draw(seed) for seed in range(60)]
    for name in ("mig", "sap"):
        expected = np.mean([f[name].value for f in found])
        assert np.mean([f[name].low <= expected <= f[name].high for f in found]) > 0.85


# ---------------------------------------------------------------- linear probe


def probed(codes, y, surroundings, **settings):
    return scored(LinearProbe(**settings), codes, y, surroundings)


def test_probe_best_worst_trap(surroundings):
    y = factors(n=300)
    best = probed(rotated(y), y, surroundings)
    noisy = probed(noise(n=300), y, surroundings)
    flat = probed(np.ones((300, 3)), y, surroundings)
    assert best["probe_r2"].value > 0.999 and best["probe_auroc"].value > 0.99
    assert best["probe_r2_few"].value > 0.99
    assert abs(noisy["probe_r2"].value) < 0.1 and abs(noisy["probe_auroc"].value - 0.5) < 0.1
    assert abs(flat["probe_r2"].value) < 0.05
    assert flat["probe_auroc"].value == pytest.approx(0.5)


def test_trap_a_wide_code_of_noise_is_not_read_off_its_own_labels(surroundings):
    """More dimensions than training images: a probe without held-out images would score 1."""
    found = probed(noise(n=150, d=200), factors(n=150), surroundings)
    assert found["probe_r2"].value < 0.1


def test_probe_reads_what_it_should(surroundings):
    """R² of a factor under noise of known size: var / (var + noise var)."""
    y = factors(n=1500, f=2)
    found = probed(y + noise(n=1500, d=2) / np.sqrt(12), y, surroundings)
    assert found["probe_r2"].value == pytest.approx(0.5, abs=0.06)
    assert found["probe_r2"].low < 0.5 < found["probe_r2"].high
    assert "1000 images to fit on" in found["probe_r2"].note


def test_probe_does_not_depend_on_order(surroundings):
    y = factors(n=90)
    samples = coded(y + noise(n=90), y)
    found = []
    for index in (range(90), torch.randperm(90).tolist()):
        metric = LinearProbe()
        metric.prepare(surroundings)
        metric.update(samples.rows(list(index)))
        found.append(metric.compute())
    assert found[0] == found[1]
