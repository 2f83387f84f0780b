"""Disentanglement scores, on the same codes and factors.

disentanglement_lib needs TensorFlow 1, which no Python of this suite has: its formulas are written
out a second time, in loops, from its conventions.
"""

import math
from typing import Any

import numpy as np
from sklearn.metrics import mutual_info_score

from agreement.cases import Case
from metrics.codes.dci import completeness, disentanglement
from metrics.codes.mig import mig
from metrics.codes.modularity import modularity
from metrics.codes.mutual_information import information_table
from metrics.codes.sap import sap
from metrics.jackknife import Array

BINS = 20
ON = "1000 codes of 5 dimensions, 3 factors of 8 levels"


def codes_and_factors() -> tuple[Array, Array]:
    """Return codes that mix factors and noise, and factors of 8 levels."""
    random = np.random.default_rng(0)
    factors = random.integers(0, 8, size=(1000, 3)).astype(float)
    mix = random.normal(size=(3, 5)) * (random.uniform(size=(3, 5)) < 0.6)
    return factors @ mix + random.normal(size=(1000, 5)), factors


def _information() -> tuple[Array, list[float]]:
    """Return scikit-learn's information of each code about each factor, and factors' entropies."""
    codes, factors = codes_and_factors()
    cut = [np.digitize(z, np.histogram(z, BINS)[1][:-1]) for z in codes.T]
    table = [[mutual_info_score(y, z) for y in factors.T] for z in cut]
    return np.array(table), [mutual_info_score(y, y) for y in factors.T]


def gap() -> tuple[Any, Any]:
    """Compare the mutual information gap."""
    table, entropies = _information()
    theirs = []
    for column, entropy in zip(table.T, entropies, strict=True):
        second, first = sorted(column)[-2:]
        theirs.append((first - second) / entropy)
    return mig(*codes_and_factors(), BINS), sum(theirs) / len(theirs)


def modular() -> tuple[Any, Any]:
    """Compare modularity."""
    theirs = []
    for row in _information()[0]:
        first = max(row) ** 2
        rest = sum(x**2 for x in row) - first
        theirs.append(1 - rest / (first * (len(row) - 1)))
    own, _ = information_table(*codes_and_factors(), BINS, "modularity")
    return modularity(own), sum(theirs) / len(theirs)


def predictability() -> tuple[Any, Any]:
    """Compare SAP of continuous factors."""
    codes, factors = codes_and_factors()
    theirs = []
    for y in factors.T:
        squares = []
        for z in codes.T:
            covariance = np.cov(z, y, ddof=1)
            squares.append(covariance[0, 1] ** 2 / (covariance[0, 0] * covariance[1, 1]))
        second, first = sorted(squares)[-2:]
        theirs.append(first - second)
    return sap(codes, factors), sum(theirs) / len(theirs)


def dci() -> tuple[Any, Any]:
    """Compare disentanglement and completeness of one table of importances."""
    importance = np.random.default_rng(0).uniform(size=(5, 3)) ** 4
    theirs = [_weighted(importance.tolist()), _weighted(importance.T.tolist())]
    return [disentanglement(importance), completeness(importance)], theirs


def _weighted(rows: list[list[float]]) -> float:
    """Return the mean over rows of 1 - entropy (base: entries), weighted by the row's sum."""
    total, found = sum(map(sum, rows)), 0.0
    for row in rows:
        shares = [(x + 1e-11) / (sum(row) + 1e-11 * len(row)) for x in row]
        entropy = -sum(p * math.log(p) for p in shares) / math.log(len(row))
        found += (1 - entropy) * sum(row) / total
    return found


CASES = [
    Case("mig", "disentanglement_lib, mig", "", ON, 1e-9, gap),
    Case("modularity", "disentanglement_lib, modularity_explicitness", "", ON, 1e-9, modular),
    Case("sap", "disentanglement_lib, sap_score, continuous", "", ON, 1e-9, predictability),
    Case(
        "dci_disentanglement, dci_completeness", "disentanglement_lib, dci", "",
        "importances of 5 codes for 3 factors", 1e-9, dci,
    ),
]  # fmt: skip
