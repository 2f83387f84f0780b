"""`eee`, `vrm` and companions: how evenly does a set of codes fill its space?"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import scipy.stats

from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, jackknifed
from metrics.jackknife import Array

DRAWS = 5  # seeded sets of normal codes that the note compares with
EMPTY = 1e-12  # share of the largest variance below which a direction counts as empty

FIGURES = {
    "eee": Figure("eigenvalue early enrichment: 0 is even, 1 a line", "", 0.0, 1.0, False),
    "vrm": Figure("squared gap of Vasicek entropy powers to N(0, 1)'s", "", 0.0, None, False),
    "pc_ratio": Figure("smallest / largest variance along an axis", "", 0.0, 1.0, True),
    "participation_ratio": Figure("(sum of variances)² / sum of squares", "", 1.0, None, True),
    "effective_rank": Figure("exp of the entropy of the variances", "", 1.0, None, True),
    "kl_normal": Figure("KL of the fitted Gaussian to a round one", "nats", 0.0, None, False),
}


class Spread(CodeMetric):
    """Spread (isotropy) of codes, from the variances along their principal axes.

    Source: "Reliable Measures of Spread in High Dimensional Latent Spaces": eigenvalue early
    enrichment (EEE) and Vasicek ratio MSE (VRM) are the two that it recommends; PC ratio and the
    closed-form KL are two of its others. Participation ratio and effective rank (Roy and
    Vetterli, "The Effective Rank") count directions. Codes are centred and scaled to a total
    variance of d, where the source scales to that of a random normal set: nothing random here.

    EEE and VRM fall with n where the spread is high, so only rows of equal n and d compare; the
    note gives what normal codes of this n and d read. Neither sees clusters: read them with
    `knn_overlap`. With n <= d there are n - 1 directions at most, EEE is taken over min(n, d)
    components and `kl_normal` is undefined.

    The interval is the jackknife over 10 groups of images, and covers the expected figure at
    this n.

    Example:
        >>> list(Spread().figures)[:2]
        ['eee', 'vrm']
    """

    source = "Reliable Measures of Spread in High Dimensional Latent Spaces"
    needs = frozenset({"codes"})
    fewest = 20

    @property
    def figures(self) -> dict[str, Figure]:
        """Spread of the spectrum and of the marginals."""
        return dict(FIGURES)

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the figures; each note gives what normal codes of this size read."""
        codes = rows["codes"]
        found = jackknifed(lambda keep: spread(codes[keep]), ids)
        return with_normal(found, spread, *codes.shape)


def spread(codes: Array) -> dict[str, float]:
    """Return all figures of codes ``[n, d]``; NaN where one is undefined.

    Example:
        >>> line = np.linspace(-1, 1, 100)[:, None] * np.eye(4)[:1]
        >>> round(spread(line)["eee"], 4)  # ((d - 1) / d)^2
        0.5625
    """
    scores, variances = principal(codes)
    if not variances.any():
        return dict.fromkeys(FIGURES, np.nan)
    share = variances / variances.sum()
    n, d = codes.shape
    return {
        "eee": early_enrichment(variances),
        "vrm": vasicek_ratio_mse(scores),
        "pc_ratio": float(variances[-1] / variances[0]),
        "participation_ratio": float(1 / np.square(share).sum()),
        "effective_rank": float(np.exp(scipy.stats.entropy(share))),
        "kl_normal": kl_normal(variances) if n > d else np.nan,
    }


def principal(codes: Array) -> tuple[Array, Array]:
    """Return principal scores ``[n, k]`` of total variance k = min(n, d), and variances ``[k]``.

    Directions that hold nothing but rounding have variance 0.
    """
    centred = codes - codes.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    variances = np.square(singular) / (len(codes) - 1)
    variances = np.where(variances > EMPTY * variances[:1], variances, 0.0)
    total = variances.sum()
    scale = np.sqrt(len(variances) * (len(codes) - 1) / total) if total > 0 else 0.0
    return left * np.sqrt(variances) * scale, variances


def early_enrichment(variances: Array) -> float:
    """Return EEE: the area of the cumulative variance above the straight line, relative.

    Args:
        variances: falling, not all zero.

    Example:
        >>> early_enrichment(np.ones(8))
        0.0
    """
    total, d = np.cumsum(variances), len(variances)
    above = total - np.arange(1, d + 1) * total[-1] / d
    return float(np.trapezoid(above) / (total[-1] * d / 2))


def vasicek_ratio_mse(scores: Array) -> float:
    """Return VRM: mean over axes of (1 - exp(H) / sqrt(2 pi e))², H Vasicek's entropy estimate.

    Args:
        scores: ``[n, k]`` of total variance k.
    """
    with np.errstate(divide="ignore"):  # an empty axis has entropy -infinity, exp of it is 0
        entropies = scipy.stats.differential_entropy(scores, axis=0, method="vasicek")
    return float(np.square(1 - np.exp(entropies) / np.sqrt(2 * np.pi * np.e)).mean())


def kl_normal(variances: Array) -> float:
    """Return KL(N(0, diag) || N(0, I)) of variances scaled to mean 1, in nats; inf if one is 0."""
    with np.errstate(divide="ignore"):
        return float(-0.5 * np.log(variances / variances.mean()).sum())


def with_normal(
    scores: Mapping[str, Score], statistic: Callable[[Array], Mapping[str, float]], n: int, d: int
) -> dict[str, Score]:
    """Return the scores with the mean over seeded normal sets of this n and d in each note."""
    normal = normal_values(statistic, n, d)
    texts = {
        name: f"N(0, I) at n={n}, d={d}: {'undefined' if np.isnan(value) else f'{value:.4g}'}"
        for name, value in normal.items()
    }
    return {name: add_note(score, texts[name]) for name, score in scores.items()}


@lru_cache(maxsize=64)
def normal_values(
    statistic: Callable[[Array], Mapping[str, float]], n: int, d: int
) -> Mapping[str, float]:
    """Return each figure's mean over seeded normal sets of n codes of d dimensions."""
    sets = [np.random.default_rng(seed).normal(size=(n, d)) for seed in range(DRAWS)]
    found = [statistic(x) for x in sets]
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}
