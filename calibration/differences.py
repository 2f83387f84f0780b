"""A/A: how often are two methods told apart that have the same true figure?"""

from itertools import combinations

import numpy as np

from calibration.laws import BEYOND, HELD, Law
from calibration.table import Table, share
from latentbench.intervals import LEVEL, Array
from latentbench.reports.comparison import Comparison, Ranking, compare

SIZES = (8, 16, 32, 64)
FLIPS = 2000
OF_BOARDS = ("normal", "exponential", "log-normal, sd of the logarithm 1")  # laws of its methods


def of_differences(trials: int) -> Table:
    """Return how often a mean difference of 0 is found, where differences follow a law."""
    rng = np.random.default_rng(4)
    table = Table(["law of the differences", "test", *(f"n = {n}" for n in SIZES)])
    for law in (*HELD, *BEYOND):
        flips, used = [], []
        for n in SIZES:
            gaps = law.draw(rng, (trials, n)) - law.mean
            flips.append(share(_sign_flips(gaps, rng) < LEVEL))
            found = (compare(row[None]) for row in gaps)
            used.append(share(np.array([c is not None and _told(c) for c in found])))
        name = law.name + (" (beyond)" if law in BEYOND else "")
        table.add(name, "sign flips", *flips)
        table.add(name, "used", *used)
    return table


def _told(found: Comparison) -> bool:
    return found.p < LEVEL and found.leaves_out_zero


def _sign_flips(gaps: Array, rng: np.random.Generator) -> Array:
    """Return p-values of the sign-flip test, all from the same flips."""
    signs = rng.choice([-1.0, 1.0], (FLIPS, gaps.shape[1]))
    sums = np.abs(gaps @ signs.T)
    hits = (sums >= np.abs(gaps.sum(1, keepdims=True)) * (1 - 1e-12)).sum(1)
    return (hits + 1) / (FLIPS + 1)


def of_boards(trials: int) -> Table:
    """Return how often a board of methods of one law tells any two apart."""
    rng = np.random.default_rng(5)
    table = Table(["law of a method's own part", "methods", *(f"n = {n}" for n in SIZES)])
    for law in (law for law in HELD if law.name.startswith(OF_BOARDS)):
        for methods in (2, 5, 12):
            cells = [
                share(np.array([_any(rng, law, methods, n) for _ in range(trials)])) for n in SIZES
            ]
            table.add(law.name, str(methods), *cells)
    return table


def _any(rng: np.random.Generator, law: Law, methods: int, n: int) -> bool:
    values = law.draw(rng, (methods, n))
    pairs = {}
    for i, j in combinations(range(methods), 2):
        found = compare((values[i] - values[j])[None])
        if found is not None:
            pairs[i, j] = found
    ranking = Ranking(values.mean(1).tolist(), pairs, higher_is_better=False)
    return any(ranking.apart(i, j) for i, j in pairs)
