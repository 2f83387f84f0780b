import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from latentbench.errors import BadInput
from latentbench.intervals import Units, jackknife_units
from latentbench.means import crossed_mean, jackknife_mean
from latentbench.reports.comparison import (
    Comparison,
    Ranking,
    compare,
    compare_all,
    compare_sets,
    holm,
    images_for,
    kendall,
    mcnemar,
)


def draw(n, seed=0):
    return np.random.default_rng(seed).normal(size=n)


class TestCompare:
    def test_a_clear_difference(self):
        found = compare(0.1 + draw((1, 40)) * 1e-3)
        assert (
            found.difference == pytest.approx(0.1, rel=0.01) and found.wins == 1 and found.n == 40
        )
        assert found.p < 0.001 and found.leaves_out_zero

    def test_always_the_same_difference_may_be_one_that_rare_images_turn_around(self):
        assert not compare(np.full((1, 40), 0.1)).leaves_out_zero

    def test_rates_that_differ_on_every_image_are_told_apart(self):
        found = compare(np.ones((1, 12)))
        assert found.leaves_out_zero and found.p == pytest.approx(2**-11)

    def test_mcnemar_is_the_binomial_test_of_the_images_that_differ(self):
        gaps = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 20)
        expected = stats.binomtest(2, 11).pvalue
        assert compare(gaps[None]).p == pytest.approx(expected)

    def test_ties_win_one_half(self):
        found = compare(np.zeros((1, 10)))
        assert (found.difference, found.wins, found.p) == (0, 0.5, 1)

    def test_few_images_have_no_interval_and_one_has_nothing(self):
        assert compare(draw((1, 7))).low is None
        assert compare(draw((1, 2))).n == 2
        assert compare(draw((1, 1))) is None

    def test_how_many_differences_are_the_same_may_be_told(self):
        gaps = draw((2, 1, 20))
        one, other = compare_all(gaps, np.array([1, 16]))
        assert one.low is not None and other.low is None

    def test_the_figures_of_the_images_that_both_have_are_plain_numbers(self):
        found = compare_all(draw((2, 1, 20)), values=np.array([[1.0, 2.0], [3.0, 4.0]]))
        assert [one.values for one in found] == [(1, 2), (3, 4)]
        assert compare(draw((1, 20))).values is None
        assert {type(found[0].p), type(found[0].low), type(found[0].values[0])} == {float}

    def test_mcnemars_test_is_for_one_seed(self):
        """Of two seeds an image may be half lost, which a sign test would not see."""
        gaps = np.array([[1.0] * 12 + [-1.0, 0.0] * 4, [1.0] * 12 + [0.0, -1.0] * 4])
        found, units = compare(gaps), Units(gaps.mean(0))
        assert found.binary and found.p == max(units.p(), crossed_mean(gaps).p())
        assert mcnemar(units.values) > found.p

    def test_two_equal_methods_differ_rarely(self):
        found = [compare(draw((1, 20), k)) for k in range(100)]
        assert np.mean([f.p < 0.05 for f in found]) < 0.12

    def test_trap_many_images_do_not_make_up_for_two_seeds(self):
        """One seed went well: by images alone the difference is beyond doubt."""
        gaps = np.stack([np.full(100, 1.0), np.full(100, 0.1)]) + 0.1 * draw((2, 100))
        assert compare(gaps.mean(0, keepdims=True)).p < 0.001
        assert compare(gaps).p > 0.2

    def test_sets_are_compared_by_their_replicates(self):
        reps = draw((1, 10)) * 0.01 + 1
        gaps, without = np.array([[1.0], [0.0]]), np.stack([reps, reps - 1])
        far, near = compare_sets(gaps, without, np.array([40, 40]))
        assert far.p < 0.001 and near.p == 1 and far.n == 40

    def test_sets_together_are_those_alone(self):
        gaps, reps = draw((3, 2)), draw((3, 2, 10))
        alone = [compare_sets(gaps[[k]], reps[[k]], np.array([40]))[0] for k in range(3)]
        assert compare_sets(gaps, reps, np.array([40] * 3)) == alone

    @pytest.mark.parametrize("shape", [(1, 20), (3, 12), (1, 7)])
    def test_pairs_together_are_the_same_to_the_last_digit(self, shape):
        gaps = draw((6, *shape)).round(1)
        gaps[1] = 0.0
        gaps[2, :, 3:] = 0.5
        gaps[3] = np.sign(gaps[3])
        assert compare_all(gaps) == [compare(gap) for gap in gaps]

    def test_a_comparison_of_sets_holds_mean_error_and_interval(self):
        gaps, reps = np.array([1.0, 2.0, 6.0]), draw((3, 10)) * 0.1 + 3
        (found,) = compare_sets(gaps[None], reps[None], np.array([40]))
        mean = jackknife_mean(gaps, reps)
        assert (found.difference, found.n, found.wins, found.smallest_p) == (3, 40, None, 0)
        assert (found.error, found.freedom) == (mean.error, mean.freedom)
        units = jackknife_units(3.0, reps.mean(0))
        assert (found.low, found.high) == mean.joined(units)
        assert found.low < 3 < found.high


class TestManyPairs:
    """Of 46 rows there are 1,035 pairs: a p-value of 1 / 20,000 would be corrected to .05."""

    def test_two_rows_of_sixty_are_told_apart(self):
        draws = np.random.default_rng(0).normal(size=(60, 32))
        draws[0] -= 3.0
        pairs = {
            (i, j): compare((draws[i] - draws[j])[None])
            for i in range(60)
            for j in range(i + 1, 60)
        }
        found = Ranking(draws.mean(1).tolist(), pairs, higher_is_better=False)
        assert found.detectable() is not None and found.ranks[0] == (1, 1)
        assert not any(found.apart(i, j) for i, j in pairs if i > 0)

    @pytest.mark.parametrize("m", [1, 15, 1035, 1770])
    def test_images_for_is_the_least_that_can_do_it(self, m):
        n = images_for(m)
        assert compare(np.ones((1, n))).p * m < 0.05
        assert n == 8 or compare(np.ones((1, n - 1))).p * m >= 0.05

    def test_groups_beyond_the_alphabet_have_names_that_stay_apart(self):
        n = 60
        everyone = {(i, j) for i in range(n) for j in range(i + 1, n)}
        letters = ranking([float(k + 1) for k in range(n)], everyone).letters
        assert [letters[k] for k in (0, 25, 26, 52)] == ["a", "z", "a2", "a3"]
        assert len(set(letters.values())) == n


class TestOneEstimand:
    def test_a_row_cannot_lead_the_column_and_lose_the_test(self):
        """On the images that both have, the first is better; on all that it has, worse."""
        found = Ranking([1.0, 2.0], {(0, 1): gap(1.0, 1e-9)}, higher_is_better=False)
        assert not found.apart(0, 1) and not found.better(1, 0)

    def test_a_difference_that_does_not_matter_is_not_told_apart(self):
        pairs = {(0, 1): gap(-0.0001, 1e-9)}
        assert Ranking([1.0, 1.0001], pairs, False).apart(0, 1)
        assert Ranking([1.0, 1.0001], pairs, False, smallest=0.0001).apart(0, 1)
        assert not Ranking([1.0, 1.0001], pairs, False, smallest=0.01).apart(0, 1)

    @pytest.mark.parametrize("values", [(1.0, 1.0), (None, 1.0), (1.0, None)])
    def test_rows_whose_shown_figures_do_not_differ_are_not_told_apart(self, values):
        assert not Ranking(values, {(0, 1): gap(-0.5, 1e-9)}, False).apart(0, 1)


class TestHolm:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_laws(self, p):
        corrected = holm(p)
        assert all(c >= x for c, x in zip(corrected, p, strict=True))
        assert max(corrected) <= 1
        assert min(corrected) == pytest.approx(min(1, len(p) * min(p)))

    def test_published_example(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    @pytest.mark.parametrize("p", [float("nan"), -0.1, 1.5])
    def test_what_is_no_p_value_is_refused(self, p):
        with pytest.raises(BadInput, match="holm takes p-values"):
            holm([0.5, p])


def gap(difference, p):
    reach = 0.5 * abs(difference)
    low, high = difference - reach, difference + reach
    return Comparison(difference, abs(difference) / 3, 30, low, high, p, 1e-4, 31)


def test_what_is_detectable_is_found_with_80_percent_power():
    found = gap(1.0, 0.01)
    for level in (0.05, 0.001):
        size = found.detectable(level)
        assert found.power(size, level) == found.power(-size, level) == pytest.approx(0.8)
    assert found.power(found.detectable()) == pytest.approx(0.8)
    exact = Comparison(1.0, 0.0, 30, None, None, 0.01, 1e-4, 31)
    assert (exact.power(0.0), exact.power(1e-9)) == (0, 1)


@pytest.mark.parametrize("ties", [False, True])
def test_kendalls_tau_is_that_of_scipy(ties):
    a, b = draw((2, 30)).round(0 if ties else 9)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert kendall(a, a) == 1 and kendall(a, -a) == -1
    assert kendall(a, np.ones(30)) is None and kendall(np.ones(30), a) is None


def ranking(values, apart, higher_is_better=False):
    """Return a ranking in which just the given pairs are told apart."""
    n = len(values)
    pairs = {
        (i, j): gap(values[i] - values[j], 1e-6 if (i, j) in apart else 0.9)
        for i in range(n)
        for j in range(i + 1, n)
    }
    return Ranking(values, pairs, higher_is_better)


class TestRanking:
    def test_what_is_not_told_apart_shares_all_ranks_and_a_letter(self):
        found = ranking([1.0, 2.0, 3.0], ())
        assert set(found.ranks.values()) == {(1, 3)}
        assert set(found.letters.values()) == {"a"}

    def test_all_apart_is_a_plain_order(self):
        found = ranking([3.0, 1.0, 2.0], {(0, 1), (0, 2), (1, 2)})
        assert found.ranks == {1: (1, 1), 2: (2, 2), 0: (3, 3)}
        assert found.letters == {1: "a", 2: "b", 0: "c"}

    def test_higher_is_better_turns_it_around(self):
        found = ranking([3.0, 1.0], {(0, 1)}, higher_is_better=True)
        assert found.order == [0, 1] and found.better(0, 1) and not found.better(1, 0)

    def test_a_row_between_two_that_differ_has_both_letters(self):
        found = ranking([1.0, 2.0, 3.0], {(0, 2)})
        assert found.letters == {0: "a", 1: "ab", 2: "b"}
        assert found.ranks == {0: (1, 2), 1: (1, 3), 2: (2, 3)}

    @given(st.integers(2, 7).flatmap(lambda n: st.tuples(st.just(n), st.sets(
        st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda p: p[0] < p[1])
    ))))  # fmt: skip
    def test_rows_share_a_letter_exactly_where_they_are_not_told_apart(self, drawn):
        n, apart = drawn
        found = ranking([float(k + 1) for k in range(n)], apart)
        letters = found.letters
        for i in range(n):
            for j in range(i + 1, n):
                assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in apart)

    def test_what_the_other_judge_does_not_order_alike_is_not_told_apart(self):
        """A method that fools the judge that scores gains no place by it."""
        pairs = {(0, 1): gap(-0.5, 1e-6)}
        for witness, apart in (((), True), ((0.8, 0.9), True), ((0.95, 0.9), False),
                               ((0.9, 0.9), False), ((None, 0.9), True)):  # fmt: skip
            found = Ranking([0.3, 0.8], pairs, False, witness=witness)
            assert found.apart(0, 1) == found.better(0, 1) == apart, witness
            assert found.differing == {(0, 1)}
            assert found.ranks[0] == ((1, 1) if apart else (1, 2))
            turned = Ranking([-0.3, -0.8], {(0, 1): gap(0.5, 1e-6)}, True,
                             witness=[w if w is None else -w for w in witness])  # fmt: skip
            assert turned.apart(0, 1) == apart, witness

    def test_p_alone_or_interval_alone_is_not_enough(self):
        wide = Comparison(1.0, 1.0, 30, -1.0, 3.0, 1e-6, 1e-4, 31)
        assert not Ranking([2.0, 1.0], {(0, 1): wide}, True).apart(0, 1)
        few = Comparison(1.0, 1.0, 5, None, None, 0.03, 0.03, 6)
        assert not Ranking([2.0, 1.0], {(0, 1): few}, True).apart(0, 1)

    def test_a_p_value_of_5_percent_is_not_below_it(self):
        assert not Ranking([2.0, 1.0], {(0, 1): gap(1.0, 0.05)}, True).apart(0, 1)

    def test_pairs_that_were_not_compared_are_not_told_apart(self):
        found = Ranking([1.0, 2.0, None], {}, True)
        assert found.ranks == {1: (1, 2), 0: (1, 2)} and found.detectable() is None

    def test_detectable_is_found_eight_times_in_ten(self):
        rng, n = np.random.default_rng(0), 32
        size = Ranking([0.0, 1.0], {(0, 1): compare(rng.normal(size=(1, n)))}, True).detectable()
        size *= 1 / (compare(np.random.default_rng(0).normal(size=(1, n))).error * np.sqrt(n))
        hits = stats.ttest_1samp(rng.normal(size=(2000, n)) + size, 0, axis=1).pvalue < 0.05
        assert np.mean(hits) == pytest.approx(0.8, abs=0.03)

    def test_detectable_is_of_the_typical_pair_at_the_corrected_level(self):
        pairs = {(i, j): gap(1.0 + i + j, 0.5) for i in range(3) for j in range(i + 1, 3)}
        found = Ranking([1.0, 2.0, 3.0], pairs, True).detectable()
        t = stats.t.ppf([1 - 0.05 / 6, 0.8], 30).sum()
        assert found == pytest.approx(t * 3 / 3)  # errors 2/3, 3/3 and 4/3

    def test_a_smallest_p_of_5_percent_cannot_tell_apart(self):
        few = Comparison(1.0, 1.0, 5, None, None, 0.05, 0.05, 6)
        assert Ranking([2.0, 1.0], {(0, 1): few}, True).detectable() is None

    def test_nothing_is_detectable_where_no_p_value_is_small_enough(self):
        pairs = {(i, j): compare(draw((1, 8), i)) for i in range(6) for j in range(i + 1, 6)}
        assert Ranking([float(k) for k in range(6)], pairs, True).detectable() is None
