import numpy as np
import pytest
import torch
from scipy import optimize, stats
from sklearn.utils import shuffle

from latentbench.errors import BadInput
from latentbench.intervals import (
    Kind,
    Units,
    clustered_wilson,
    jackknife,
    jackknife_rate,
    jackknife_units,
    row_units,
    wilson,
)
from latentbench.means import Mean, crossed_mean, jackknife_mean
from latentbench.statistics import add_note, mean_score, rate_score, row_score
from latentbench.types import Score


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
        assert again.n == 50 and again.note == ""

    @pytest.mark.parametrize("n", [8, 30])
    def test_interval_covers_the_mean(self, n):
        found = [mean_score(draw(n, seed), names(n)) for seed in range(200)]
        assert 0.9 < np.mean([s.low < 0 < s.high for s in found]) <= 0.99

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
        assert (score.value, score.n, score.note) == (None, 0, "no defined value")

    def test_order_changes_no_byte(self):
        values, ids = draw(60).numpy(), names(20) * 3
        expected = mean_score(torch.from_numpy(values), ids)
        for seed in range(5):
            v, i = shuffle(values, ids, random_state=seed)
            assert mean_score(torch.from_numpy(v), i) == expected


def test_a_figure_of_rows_has_the_interval_of_its_kind():
    rows = torch.tensor([1.0, 0.0] * 10)
    assert row_score(rows, names(20), Kind.RATE) == rate_score(rows, names(20))
    assert row_score(rows, names(20), Kind.MEAN) == mean_score(rows, names(20))


def test_notes_are_joined_and_empty_ones_left_out():
    assert add_note(Score(1.0, 1, note="a"), "", "b").note == "a; b"


@pytest.mark.parametrize("successes", [1, 8])
def test_wilson_equals_its_formula(successes):
    low, high = wilson(successes, 10)
    z, p, n = 1.959963985, successes / 10, 10
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    assert (low, high) == pytest.approx((middle - half, middle + half))


def test_nothing_and_everything_end_exactly_at_0_and_1():
    assert all(wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1 for n in range(1, 200))


def hall(values, quantile, enlarged):
    """Return the end of Hall's interval at this quantile of his transform, found by search."""
    n = len(values)
    skew = stats.skew(values) * (1 + 6 / n if enlarged else 1)

    def transform(x):
        return np.sqrt(n) * (x + skew * x**2 / 3 + skew**2 * x**3 / 27 + skew / (6 * n))

    root = optimize.brentq(lambda x: transform(x) - quantile, -50, 50, xtol=1e-14)
    return values.mean() - values.std() * root


SKEWED = np.exp(draw(12).numpy())
TIED = np.concatenate([np.zeros(4), SKEWED[:8]])
MILD = np.array([0.0, 0, 0, 0, 1, 2, 3, 4, 6])
EVEN = np.array([-2.0, -1, -1, -1, 0, 1, 1, 1, 2])  # a third of it the same, no skewness


class TestUnits:
    @pytest.mark.parametrize("values", [SKEWED, -0.01 * SKEWED, draw(9).numpy()])
    def test_interval_is_the_union_of_students_and_halls(self, values):
        n = len(values)
        q = stats.t.ppf(0.975, n - 1)
        low, high = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
        union = min(low, hall(values, q, True)), max(high, hall(values, -q, True))
        assert Units(values).interval() == pytest.approx(union)

    @pytest.mark.parametrize("values", [TIED, MILD, EVEN])
    def test_interval_of_tied_values_is_halls_alone(self, values):
        q = stats.t.ppf(0.975, len(values) - 1)
        ends = hall(values, q, False), hall(values, -q, False)
        assert Units(values).interval() == pytest.approx(ends)

    @pytest.mark.parametrize("shift", [-4.0, -1.0, 0.1, 1.0])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_p_is_the_level_of_the_interval_that_ends_at_0(self, shift, sign):
        units = Units(sign * SKEWED + shift)
        low, high = units.interval(units.tail())
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-9)

    def test_p_is_no_smaller_than_a_sign_flip_test_can_give(self):
        assert Units(np.array([0.0, 1, -2, 3])).smallest_p() == 1 / 4
        assert Units(np.zeros(9)).smallest_p() == 1

    def test_a_constant_is_0_or_it_is_not(self):
        assert Units(np.full(9, 2.0)).tail() == 0 and Units(np.zeros(9)).tail() == 1

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            (np.arange(7.0), "7 images, at least 8 needed"),
            (np.arange(8.0), ""),
            (
                np.array([0.0] * 4 + [1, 2, 3, 4]),
                "4 of 8 images read the same, at least 5 others needed",
            ),
            (np.array([0.0] * 3 + [1, 2, 3, 4, 5]), ""),
            (1 + 1e-14 * np.array([0.0] * 5 + [1, 2, 3, 4, 5]), "all images read the same"),
        ],
    )
    def test_why_there_is_no_interval(self, values, words):
        assert Units(values).why_no_interval() == words

    def test_the_most_common_value_need_not_be_the_smallest(self):
        assert Units(np.array([0.0, 1, 2, 1, 1])).common == 3
        assert Units(np.zeros((2, 0))).common.tolist() == [0, 0]

    def test_rows_at_once_are_those_alone(self):
        """Tied and untied, constant, tiny beside huge."""
        rows = np.stack([SKEWED, TIED, np.ones(12), 1e-13 * SKEWED, 1e3 - SKEWED, -TIED])
        together = Units(rows.reshape(3, 2, 12))
        for name in ("value", "common", "have_interval"):
            alone = [getattr(Units(row), name) for row in rows]
            assert getattr(together, name).reshape(-1).tolist() == alone
        for name in ("p", "tail", "smallest_p"):
            alone = [getattr(Units(row), name)() for row in rows]
            assert getattr(together, name)().reshape(-1).tolist() == alone
        ends = [Units(row).interval() for row in rows]
        assert np.stack(together.interval(), -1).reshape(-1, 2).tolist() == [[*e] for e in ends]


class TestRowUnits:
    def test_they_are_pseudo_values_about_the_mean_over_rows(self):
        sums, counts = draw(6).numpy(), np.array([1.0, 2, 3, 1, 2, 5])
        mean = sums.sum() / counts.sum()
        left = [np.delete(sums, k).sum() / np.delete(counts, k).sum() for k in range(6)]
        pseudo = 6 * mean - 5 * np.array(left)
        found = row_units(sums, counts)
        assert found.values == pytest.approx(pseudo - pseudo.mean() + mean)
        assert found.value == pytest.approx(mean)

    def test_images_that_read_the_same_are_counted_by_their_means(self):
        assert row_units(np.array([1.0, 2, 3, 5]), np.array([1.0, 2, 3, 2])).common == 3

    def test_one_image_is_its_mean(self):
        units = row_units(np.array([2.0]), np.array([4.0]))
        assert (units.values.tolist(), units.common) == ([0.5], 1)

    def test_figures_at_once_are_those_alone(self):
        sums, counts = draw(24).numpy().reshape(2, 2, 6), np.array([1.0, 2, 3, 1, 2, 5])
        together = row_units(sums, counts).values.reshape(4, 6)
        assert together.tolist() == [
            row_units(s, counts).values.tolist() for s in sums.reshape(4, 6)
        ]


def test_the_jackknifes_units_of_a_mean_are_its_values():
    x = draw(20).numpy().reshape(2, 10)
    left = np.stack([np.delete(x, k, 1).mean(1) for k in range(10)], 1)
    assert jackknife_units(x.mean(1), left).values == pytest.approx(x)


def test_ends_of_a_share_of_a_set_are_as_far_as_a_t_test_of_its_variance_allows():
    value, replicates = 0.6, 0.6 + 0.01 * draw(10).numpy()
    variance = jackknife_units(value, replicates).values.var(ddof=1) / 10
    rows, t = value * (1 - value) / variance, stats.t.ppf(0.975, 9)
    low, high = jackknife_rate(value, replicates, 50)
    assert low < value < high
    for end in (low, high):
        assert (value - end) ** 2 == pytest.approx(t**2 * end * (1 - end) / rows)


@pytest.mark.parametrize("replicates", [[0.0] * 10, [0.0] * 9 + [0.1]])
def test_a_share_of_0_has_the_interval_of_its_images(replicates):
    found = jackknife_rate(0.0, replicates, 50)
    assert found == wilson(0, 50, stats.t.ppf(0.975, 9))


@pytest.mark.parametrize("value", [0.5, 0.25])
def test_a_share_that_does_not_vary_has_the_interval_of_its_images(value):
    found = jackknife_rate(value, [value] * 10, 40)
    assert found == pytest.approx(wilson(value * 40, 40, stats.t.ppf(0.975, 9)))


def test_jackknife_of_a_mean_holds_its_t_interval():
    x = draw(10).numpy()
    low, high = jackknife(x.mean(), [np.delete(x, k).mean() for k in range(10)])
    half = stats.t.ppf(0.975, 9) * x.std(ddof=1) / np.sqrt(10)
    assert low < x.mean() - 0.99 * half and high > x.mean() + 0.99 * half
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)


def test_a_jackknife_without_spread_has_no_interval():
    assert jackknife(1.0, [1.0] * 10) is None


class TestRateScore:
    def test_no_success_has_an_upper_end(self):
        score = rate_score(torch.zeros(10), names(10))
        assert (score.value, score.low) == (0, 0) and score.high == pytest.approx(0.2775, abs=1e-4)

    def test_rows_of_one_image_that_agree_count_once(self):
        values = torch.tensor([1.0] * 8 + [0.0] * 8)
        once = rate_score(values, names(16))
        again = rate_score(values.repeat_interleave(4), [i for i in names(16) for _ in range(4)])
        assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.05)

    def test_share_and_count_of_images_are_those_of_the_known_values(self):
        values = torch.tensor([[1.0, 1.0], [0.0, torch.nan], [torch.nan, torch.nan], [1.0, 0.0]])
        score = rate_score(values, names(4))
        assert (score.value, score.n) == (pytest.approx(3 / 5), 3)
        assert score.note == "3 undefined values left out"

    def test_nothing_is_no_figure(self):
        score = rate_score(torch.full((2,), torch.nan), names(2))
        assert (score.value, score.n, score.note) == (None, 0, "no defined value")

    @pytest.mark.parametrize(
        ("hits", "rows", "like"),
        [
            ([2, 0, 1, 1], 2, (3, 6)),  # variance 1/24, of eight independent rows 1/32: effect 4/3
            ([2, 1], 2, (2.25, 3)),  # variance 1/16, of four independent rows 3/64: effect 4/3
            ([1, 1, 1, 1], 2, (4, 8)),  # no variance: no less than that of independent rows
            ([2, 0], 2, (1, 2)),  # rows of an image agree: one row an image
            ([3, 3], 3, (2, 2)),  # no failure: as if they agreed
            ([1], 2, (0.5, 1)),  # one image tells nothing of its rows
            ([1, 0, 1], 1, (2, 3)),
        ],
    )
    def test_interval_of_clusters_is_that_of_rows_over_the_design_effect(self, hits, rows, like):
        found = clustered_wilson(np.array(hits, float), np.full(len(hits), float(rows)))
        assert found == pytest.approx(wilson(*like))

    def test_what_is_neither_0_nor_1_is_refused(self):
        with pytest.raises(BadInput, match=r"rows of 0 and 1, got 0\.5"):
            rate_score(torch.tensor([0.5]), names(1))


class TestRefusedIntervals:
    def test_rare_events(self):
        """Nine images in ten read 0: how much the others vary cannot be seen in three of them."""
        score = mean_score(torch.tensor([0.0] * 27 + [1.0, 2.0, 3.0]), names(30))
        assert score.low is None and "27 of 30 images read the same" in score.note

    def test_a_constant(self):
        assert mean_score(torch.ones(30), names(30)).low is None


class TestSeeds:
    """A mean over seeds and images, both drawn at random."""

    def table(self, rng, s, n, of_seeds, of_images, rest):
        return (
            of_seeds * rng.normal(size=(s, 1))
            + of_images * rng.normal(size=(1, n))
            + rest * rng.normal(size=(s, n))
        )

    def test_one_seed_is_the_standard_error_of_the_mean(self):
        x = draw(12).numpy()
        found = crossed_mean(x[None])
        assert found.error == pytest.approx(x.std(ddof=1) / np.sqrt(12))
        assert found.freedom == 11 and found.seed_share is None

    def test_the_parts_are_told_apart(self):
        rng = np.random.default_rng(0)
        only_seeds = crossed_mean(self.table(rng, 5, 40, 1.0, 0.0, 0.01))
        only_images = crossed_mean(self.table(rng, 5, 40, 0.0, 1.0, 0.01))
        assert only_seeds.seed_share > 0.99 and only_seeds.freedom == pytest.approx(4, abs=0.1)
        assert only_images.seed_share < 0.01 and only_images.freedom == pytest.approx(39, abs=1)

    def test_equals_the_textbook_on_a_table_worked_by_hand(self):
        """Rows 1 3, 3 7: mean squares of rows 9, of columns 9, of the rest 1; variance 17 / 4."""
        found = crossed_mean(np.array([[1.0, 3.0], [3.0, 7.0]]))
        assert found.value == 3.5
        assert found.error == pytest.approx(np.sqrt((9 + 9 - 1) / 4))
        assert found.seed_share == pytest.approx(8 / 17)

    def test_degrees_of_freedom_are_satterthwaites(self):
        table = self.table(np.random.default_rng(0), 3, 5, 1.0, 1.0, 0.5)
        rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
        squares = (
            5 * table.mean(1).var(ddof=1),
            3 * table.mean(0).var(ddof=1),
            (rest**2).sum() / 8,
        )
        found = crossed_mean(table)
        assert found.error**2 == pytest.approx((squares[0] + squares[1] - squares[2]) / 15)
        below = sum((m / 15) ** 2 / df for m, df in zip(squares, (2, 4, 8), strict=True))
        assert found.freedom == pytest.approx(found.error**4 / below)

    def test_a_mean_with_several_seeds_has_the_union_of_both_intervals(self):
        units, student = Units(SKEWED), stats.t.ppf(0.975, 4)
        assert Mean(1.5, 0.1, 4.0).joined(units) == units.interval()
        wide = Mean(1.5, 2.0, 4.0, 0.5).joined(units)
        assert wide == pytest.approx((1.5 - 2 * student, 1.5 + 2 * student))
        assert Mean(1.5, 0.1, 4.0, 0.5).joined(units) == units.interval()

    @pytest.mark.parametrize("turned", [False, True])
    def test_a_negative_estimate_counts_as_no_variance(self, turned):
        """Rows 1 2 0 and 2 0 1: means vary less than by chance; mean squares 0, 1/2, 3/2."""
        table = np.array([[1.0, 2.0, 0.0], [2.0, 0.0, 1.0]])
        found = crossed_mean(table.T if turned else table)
        assert found.error == pytest.approx(np.sqrt(1.5 / 6))
        assert found.seed_share == 0

    @pytest.mark.parametrize("parts", [(1.0, 0.1, 0.1), (0.0, 1.0, 1.0), (0.2, 1.0, 0.5)])
    def test_interval_covers(self, parts):
        rng = np.random.default_rng(1)
        found = [crossed_mean(self.table(rng, 3, 16, *parts)).interval() for _ in range(300)]
        assert np.mean([low <= 0 <= high for low, high in found]) > 0.92

    def test_p_and_interval_say_the_same(self):
        rng = np.random.default_rng(2)
        for _ in range(50):
            found = crossed_mean(self.table(rng, 3, 10, 0.3, 0.5, 0.5) + 0.5)
            low, high = found.interval()
            assert (found.p() < 0.05) == (not low <= 0 <= high)

    def test_nothing_varies(self):
        found = crossed_mean(np.ones((3, 8)))
        assert (found.error, found.p()) == (0, 0)
        assert crossed_mean(np.zeros((3, 8))).p() == 1

    def test_sets_add_the_variance_of_seeds_to_the_jackknife(self):
        values, replicates = np.array([1.0, 2.0, 6.0]), draw(30).numpy().reshape(3, 10)
        groups = replicates.mean(0)
        jack = 9 / 10 * np.square(groups - groups.mean()).sum()
        found = jackknife_mean(values, replicates)
        seeds = values.var(ddof=1) / 3
        assert found.value == 3 and found.error**2 == pytest.approx(seeds + jack)
        assert found.seed_share == pytest.approx(seeds / (seeds + jack))
        assert found.freedom == pytest.approx((seeds + jack) ** 2 / (seeds**2 / 2 + jack**2 / 9))
        one = jackknife_mean(values[:1], replicates[:1])
        assert one.freedom == 9
        low, high = jackknife(1.0, replicates[0])
        assert low <= one.interval()[0] < one.interval()[1] <= high

    def test_sets_at_once_are_those_alone(self):
        values, replicates = draw(12).numpy().reshape(4, 3), draw(120).numpy().reshape(4, 3, 10)
        values[3], replicates[3] = 2.0, 2.0  # nothing varies
        together = jackknife_mean(values, replicates)
        for k, pair in enumerate(zip(values, replicates, strict=True)):
            alone = jackknife_mean(*pair)
            for name in ("value", "error", "freedom", "seed_share"):
                assert getattr(together, name)[k] == getattr(alone, name)
        assert (together.error[3], together.seed_share[3]) == (0, 0)
