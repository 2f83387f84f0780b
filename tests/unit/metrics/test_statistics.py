import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.utils import shuffle

from latentbench.errors import BadInput
from latentbench.statistics import compare, holm, jackknife, mean_score, sign_flip, wilson


def names(n):
    return [f"i{k:04d}" for k in range(n)]


def draw(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestMeanScore:
    def test_interval_is_that_of_the_normal_law(self):
        score = mean_score(draw(400), names(400))
        half = 1.96 * float(draw(400).std()) / 20
        assert (score.high - score.low) / 2 == pytest.approx(half, rel=0.07)

    def test_trap_repeated_rows_are_no_new_images(self):
        once = mean_score(draw(50), names(50))
        again = mean_score(draw(50).repeat(10), names(50) * 10)
        assert again.value == pytest.approx(once.value)
        assert again.high - again.low == pytest.approx(once.high - once.low)
        assert again.n == 50

    def test_interval_covers_the_mean(self):
        found = [mean_score(draw(30, seed), names(30)) for seed in range(200)]
        assert 0.88 < np.mean([s.low < 0 < s.high for s in found]) <= 0.99

    def test_undefined_values_are_left_out_and_counted(self):
        values = torch.tensor([[1.0, torch.nan]] * 10 + [[torch.inf, torch.nan]])
        score = mean_score(values, names(11))
        assert (score.value, score.n) == (1, 10)
        assert "12 undefined" in score.note

    def test_few_images_have_no_interval(self):
        score = mean_score(torch.ones(7), names(7))
        assert score.value == 1 and score.low is None and "7 images" in score.note

    @pytest.mark.parametrize(
        "values", [torch.zeros(0), torch.zeros(0, 3), torch.full((2,), torch.nan)]
    )
    def test_nothing_is_no_figure(self, values):
        score = mean_score(values, names(len(values)))
        assert score.value is None and score.note == "no defined value"

    def test_order_changes_no_byte(self):
        values, ids = draw(60).numpy(), names(20) * 3
        expected = mean_score(torch.from_numpy(values), ids)
        for seed in range(5):
            v, i = shuffle(values, ids, random_state=seed)
            assert mean_score(torch.from_numpy(v), i) == expected

    def test_many_images_take_little_memory(self):
        assert mean_score(draw(100_000)[:60_000], names(60_000)).low is not None


class TestCompare:
    def test_pairs_by_id_whatever_the_order(self):
        a, ids = draw(40), names(40)
        b = a - 0.1
        found = compare(a, b.flip(0), ids, ids[::-1])
        assert found.difference == pytest.approx(0.1) and found.wins == 1 and found.n == 40
        assert found.p < 0.001 and found.low == pytest.approx(0.1)

    def test_ids_of_one_method_only_do_not_count(self):
        found = compare(draw(10), draw(5), names(10), names(5))
        assert found.n == 5 and found.difference == 0 and found.wins == 0.5 and found.low is None

    def test_nothing_in_common(self):
        assert compare(torch.ones(2), torch.ones(2), ["a", "b"], ["c", "d"]).difference is None

    def test_undefined_values_drop_their_image(self):
        a = torch.tensor([1.0, torch.nan, 3.0])
        assert compare(a, torch.zeros(3), names(3), names(3)).n == 2

    def test_two_equal_methods_differ_rarely(self):
        found = [compare(draw(20, k), draw(20, 1000 + k), names(20), names(20)) for k in range(100)]
        assert np.mean([f.p < 0.05 for f in found]) < 0.12


class TestSignFlip:
    def test_exact_equals_scipy(self):
        gaps = draw(9).numpy() + 0.4
        theirs = stats.permutation_test(
            (gaps,), np.sum, permutation_type="samples", n_resamples=np.inf
        )
        assert sign_flip(gaps) == pytest.approx(theirs.pvalue)

    def test_drawn_is_near_the_t_test(self):
        gaps = draw(60).numpy() + 0.25
        assert sign_flip(gaps) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=0.01)

    def test_smallest_possible(self):
        assert sign_flip(np.ones(5)) == 2 / 2**5
        assert sign_flip(np.ones(1)) is None
        assert sign_flip(np.zeros(20)) == 1


def test_wilson_equals_its_formula():
    low, high = wilson(8, 10)
    z, p, n = 1.959963985, 0.8, 10
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    assert (low, high) == pytest.approx((middle - half, middle + half))


def test_jackknife_of_a_mean_is_its_standard_error():
    x = draw(10).numpy()
    low, high = jackknife(x.mean(), [np.delete(x, k).mean() for k in range(10)])
    half = stats.t.ppf(0.975, 9) * x.std(ddof=1) / np.sqrt(10)
    assert (high - low) / 2 == pytest.approx(half)


class TestHolm:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_laws(self, p):
        corrected = holm(p)
        assert all(c >= x for c, x in zip(corrected, p, strict=True))
        assert max(corrected) <= 1
        assert min(corrected) == pytest.approx(min(1, len(p) * min(p)))

    def test_published_example(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_undefined_values_are_refused(self):
        with pytest.raises(BadInput, match="holm takes p-values"):
            holm([float("nan")])
