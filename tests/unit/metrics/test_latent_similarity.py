"""Two spaces compared: what they must not care about, what they must see, and chance."""

import numpy as np
import pytest
from planted import coded, in_parts

from metrics.codes.cka import CKA, cka, debiased_cka, gaussian_kernel, unbiased_hsic
from metrics.codes.relative_representation import RelativeRepresentation, agreement, relative
from metrics.codes.svcca import SVCCA, svcca

N, D = 160, 8


def codes(seed=0, n=N, d=D):
    return np.random.default_rng(seed).normal(size=(n, d))


def rotation(d=D):
    return np.linalg.qr(codes(5, d, d))[0]


def scored(metric, one, other):
    metric.update(coded(one, other_codes=_float(other)))
    return metric.compute()


def _float(x):
    import torch

    return torch.as_tensor(x).float()


METRICS = (RelativeRepresentation, CKA, SVCCA)


@pytest.mark.parametrize("cls", METRICS)
def test_best_the_same_space_turned_and_scaled(cls):
    x = codes()
    for name, score in scored(cls(), x, 3 * x @ rotation()).items():
        if not name.startswith("abs"):
            assert score.value == pytest.approx(1, abs=1e-5), name


@pytest.mark.parametrize("cls", METRICS)
def test_worst_unrelated_spaces(cls):
    found = scored(cls(), codes(), codes(1))
    limit = {"cka_linear": 0.2, "svcca": 0.3, "cka_rbf": 0.9}
    for name, score in found.items():
        assert score.value < limit.get(name, 0.15), name


@pytest.mark.parametrize("cls", METRICS)
def test_trap_a_constant_space_is_like_none(cls):
    for name, score in scored(cls(), codes(), np.ones((N, D))).items():
        assert score.value is None or score.value < 0.1, name


def test_trap_an_image_far_off_in_both_spaces_is_named_and_moves_the_robust_figures_little():
    one, other = codes(), codes(1)
    near = scored(CKA(), one, other) | scored(SVCCA(), one, other)
    one[7] += 300
    other[7] -= 300
    far = scored(CKA(), one, other) | scored(SVCCA(), one, other)
    for name in ("cka_linear", "svcca"):
        assert far[name].value > 0.99, name
    for name in ("cka_linear_debiased", "cka_rbf"):
        assert abs(far[name].value - near[name].value) < 0.1, name
    assert all("alone holds" in score.note for score in far.values())
    assert not any("alone holds" in score.note for score in near.values())


@pytest.mark.parametrize("cls", METRICS)
def test_order_and_split_of_rows_change_no_byte(cls):
    samples = coded(codes(), other_codes=_float(codes() + codes(1)))
    order = np.random.default_rng(3).permutation(N).tolist()
    one, other = cls(), in_parts(cls(), samples.rows(order), [7, 30])
    one.update(samples)
    assert one.compute() == other.compute()


# ---------------------------------------------------------------- relative representations


def test_a_rotation_leaves_relative_codes_and_breaks_absolute_ones():
    x, turn = codes(), rotation()
    np.testing.assert_allclose(
        relative(x, x[:20], False), relative(x @ turn, x[:20] @ turn, False), atol=1e-12
    )
    found = scored(RelativeRepresentation(), x, x @ turn)
    assert found["rel_mrr_at_10"].value == pytest.approx(1)
    assert found["abs_mrr_at_10"].value < 0.2


def test_a_translation_needs_centring():
    x = codes()
    near = relative(x, x[:20], False)
    assert np.abs(relative(x + 5, x[:20] + 5, False) - near).max() > 0.1
    np.testing.assert_allclose(
        relative(x + 5, x[:20] + 5, True), relative(x, x[:20], True), atol=1e-10
    )


def test_retrieval_rises_with_anchors():
    x = codes()
    y = (x + 0.3 * codes(1)) @ rotation()
    few, many = (
        scored(RelativeRepresentation(anchors=k), x, y)["rel_mrr_at_10"].value for k in (2, 64)
    )
    assert few < 0.5 < many


def test_agreement_of_written_neighbours():
    """Three points on a circle; in the other space two have changed places."""
    x = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    jaccard, reciprocal, cosine = agreement(x, x[[1, 0, 2]], 1)
    assert jaccard.tolist() == [0, 0, 1] and reciprocal.tolist() == [0, 0, 1]
    assert cosine[2] == pytest.approx(1)
    assert agreement(x, x[[1, 0, 2]], 2)[1].tolist() == [0.5, 0.5, 1]


def test_spaces_of_other_dimensions_have_no_absolute_figure():
    found = scored(RelativeRepresentation(), codes(), codes(d=5))
    assert found.keys() == {"rel_jaccard_at_10", "rel_mrr_at_10", "rel_cosine"}
    assert "80 anchors" in found["rel_cosine"].note and "chance" in found["rel_mrr_at_10"].note


# ---------------------------------------------------------------- CKA, SVCCA


def test_linear_cka_is_the_published_formula():
    x, y = codes(), codes(1) + codes()
    x, y = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert cka(x @ x.T, y @ y.T) == pytest.approx(expected)


def test_unbiased_hsic_is_zero_on_average_for_unrelated_spaces():
    found = [
        unbiased_hsic(x @ x.T, y @ y.T)
        for x, y in ((codes(2 * s, 30, 4), codes(2 * s + 1, 30, 4)) for s in range(300))
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / len(found) ** 0.5


def test_trap_many_dimensions_look_alike_to_the_biased_form_alone():
    x, y = codes(0, 40, 400), codes(1, 40, 400)
    assert cka(x @ x.T, y @ y.T) > 0.8
    assert abs(debiased_cka(x @ x.T, y @ y.T)) < 0.1


def test_the_gaussian_kernel_does_not_see_scale():
    x = codes()
    np.testing.assert_allclose(gaussian_kernel(x, 0.5), gaussian_kernel(100 * x, 0.5))


def test_svcca_forgives_any_linear_map_and_cuts_small_directions():
    x = codes(n=400)
    assert svcca(x, x @ codes(3, D, D), 1.0) == pytest.approx(1)
    tail = np.concatenate([x, 1e-3 * codes(4, 400, 5)], 1)
    assert svcca(x, tail) == pytest.approx(1, abs=1e-4)


def test_svcca_of_half_a_shared_space():
    x, y = codes(n=4000), codes(1, n=4000)
    y[:, : D // 2] = x[:, : D // 2]
    assert svcca(x, y) == pytest.approx(0.5, abs=0.03)


def test_more_directions_than_images_say_nothing():
    assert np.isnan(svcca(codes(0, 10, 8), codes(1, 10, 8)))


def test_the_note_gives_chance():
    score = scored(CKA(), codes(), codes(1))["cka_linear"]
    assert "shuffled images" in score.note and score.low < score.value < score.high
