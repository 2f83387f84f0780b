"""Simulations behind docs/statistics.md: do intervals hold the truth as often as they say?"""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from latentbench.intervals import jackknife, wilson
from latentbench.reports.comparison import Ranking, compare
from latentbench.statistics import crossed_mean, mean_score

pytestmark = pytest.mark.slow
LAWS = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "exponential": (lambda rng, n: rng.exponential(size=n), 1.0),
    "beta": (lambda rng, n: rng.beta(0.5, 3, size=n), 0.5 / 3.5),
}


def share(trial, times=400):
    rng = np.random.default_rng(0)
    return np.mean([trial(rng) for _ in range(times)])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("n", "least"), [(8, 0.85), (16, 0.88), (64, 0.91)])
def test_bootstrap_of_means(law, n, least):
    draw, truth = LAWS[law]

    def trial(rng):
        score = mean_score(torch.from_numpy(draw(rng, n)), [str(k) for k in range(n)])
        return score.low <= truth <= score.high

    assert least <= share(trial) <= 0.99


@pytest.mark.parametrize(("n", "least"), [(8, 0.85), (32, 0.92)])
def test_wilson_of_rates(n, least):
    """It swings with the rate, as every interval of a count must: 95% on average over rates."""
    rates = np.linspace(0.01, 0.99, 99)
    ends = [wilson(k, n) for k in range(n + 1)]
    held = [
        sum(stats.binom.pmf(k, n, p) for k, (low, high) in enumerate(ends) if low <= p <= high)
        for p in rates
    ]
    assert np.mean(held) == pytest.approx(0.954, abs=0.005)
    assert min(held) > least


@pytest.mark.parametrize(("law", "least"), [("normal", 0.9), ("exponential", 0.79)])
def test_jackknife_of_a_biased_statistic_holds_what_is_expected_at_this_n(law, least):
    """The variance with n in the denominator, of 40 values in 10 groups; it has heavy tails."""
    draw, _ = LAWS[law]

    def trial(rng):
        x = draw(rng, (10, 4))
        low, high = jackknife(x.var(), [np.delete(x, k, 0).var() for k in range(10)])
        return low <= 39 / 40 <= high

    assert least < share(trial, 1000) <= 1


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("parts", [(1.0, 0.1, 0.1), (0.2, 1.0, 0.5), (0.0, 1.0, 1.0)])
def test_seeds_and_images(seeds, parts):
    of_seeds, of_images, rest = parts

    def trial(rng):
        rows, columns = rng.normal(size=(seeds, 1)), rng.normal(size=(1, 16))
        table = of_seeds * rows + of_images * columns + rest * rng.normal(size=(seeds, 16))
        low, high = crossed_mean(table).interval()
        return low <= 0 <= high

    assert share(trial, 1000) > 0.91


@pytest.mark.parametrize("step", [0.05, 0.0001])
def test_rank_intervals_hold_all_true_ranks_together(step):
    """Six methods, 32 images; bootstrapping the ranks holds them in .80 and .47 of 200 trials."""
    means = np.arange(6) * step

    def trial(rng):
        values = means + rng.normal(size=(32, 1)) + rng.normal(size=(32, 6)) / np.sqrt(2)
        gaps = {(i, j): values[:, i] - values[:, j] for i, j in combinations(range(6), 2)}
        pairs = {pair: compare(gap[None]) for pair, gap in gaps.items()}
        ranks = Ranking(values.mean(0).tolist(), pairs, False).ranks()
        return all(low <= k + 1 <= high for k, (low, high) in ranks.items())

    assert share(trial, 100) > 0.9
