import itertools

import numpy as np
import pytest

from latentbench.intervals import jackknife_units
from metrics.jackknife import GROUPS, of_pairs

EVERY = range(GROUPS)


def variance(value, replicates):
    return jackknife_units(value, replicates).values.var(ddof=1) / GROUPS


def test_of_a_mean_the_replicates_are_those_of_the_jackknife():
    x = np.random.default_rng(0).normal(size=GROUPS)
    found = of_pairs(lambda kept: float(x[list(kept)].mean()))
    assert found == pytest.approx([np.delete(x, k).mean() for k in EVERY])


@pytest.mark.parametrize(("own", "most"), [(0.0, 1.55), (1.0, 1.1)])
def test_what_pairs_do_together_counts_once(own, most):
    """True variances: 4 own^2 / G of the parts of one, 2 / G (G - 1) of those of two.

    The jackknife's is 2 times as large where there is nothing but pairs.
    """
    rng, means = np.random.default_rng(1), []
    for _ in range(200):
        one, two = own * rng.normal(size=GROUPS), rng.normal(size=(GROUPS, GROUPS))

        def statistic(kept, one=one, two=two):
            pairs = itertools.combinations(kept, 2)
            return float(np.mean([one[i] + one[j] + two[i, j] for i, j in pairs]))

        means.append(variance(statistic(EVERY), of_pairs(statistic)))
    true = 4 * own**2 / GROUPS + 2 / (GROUPS * (GROUPS - 1))
    assert 0.85 < np.mean(means) / true < most


def test_what_does_not_vary_has_no_variance():
    assert of_pairs(lambda kept: 2.0) == (2.0,) * GROUPS
