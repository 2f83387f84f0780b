"""Coverage of intervals of figures of sets, their expected figure at this n, and A/A rates."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from calibration.table import Table, share
from latentbench.intervals import LEVEL, Array
from latentbench.reports.comparison import compare_sets
from latentbench.types import Score
from metrics.codes.noise_statistics import neighbour_score
from metrics.sets.frechet import frechet_score
from metrics.sets.kernel import kernel_score
from metrics.sets.prdc import NAMES, prdc_scores
from metrics.sets.vendi import vendi_score

DIMENSIONS, REAL, NEIGHBOURS = 8, 512, 5
SIZES = (40, 80, 160)
SHOWN = 0.1

Features = Callable[[np.random.Generator, int], Array]


def _radial(scale: Callable[[np.random.Generator, int], Array]) -> Features:
    return lambda rng, n: rng.normal(size=(n, DIMENSIONS)) * scale(rng, n)[:, None]


LAWS: dict[str, Features] = {
    "normal": _radial(lambda rng, n: np.ones(n)),
    "uniform": lambda rng, n: rng.uniform(-1.7, 1.7, (n, DIMENSIONS)),
    "gamma(4)": lambda rng, n: rng.gamma(4, 0.5, (n, DIMENSIONS)),
    "exponential": lambda rng, n: rng.exponential(size=(n, DIMENSIONS)),
    "Student's t, 5 degrees of freedom": _radial(
        lambda rng, n: 1 / np.sqrt(rng.chisquare(5, n) / 5)
    ),
    "Student's t, 3 degrees of freedom": _radial(
        lambda rng, n: 1 / np.sqrt(rng.chisquare(3, n) / 3)
    ),
    "normal with a log-normal scale": _radial(lambda rng, n: rng.lognormal(0, 1, n)),
}
OF_SHARES = ("normal", "uniform", "gamma(4)", "exponential")  # features of precision and the others
MAP = (3, 8, 8)  # of noise
SHIFTED, EQUAL = (1.2, 0.3), (1.0, 0.0)  # scale and shift of the outputs against the real images

Measure = Callable[[Array, Array], list[Score]]


def of_sets(trials: int) -> Table:
    """Return the coverage of distances of sets, and of precision and its companions."""
    table = Table(["figure", "features", *(f"n = {n}" for n in SIZES)])
    for figure, measure in _DISTANCES.items():
        for name, law in LAWS.items():
            columns = [_coverage(measure, law, SHIFTED, n, trials) for n in SIZES]
            table.add(figure, name, *(column[0] for column in columns))
    for outputs, name in ((SHIFTED, ""), (EQUAL, ", as real as the real ones")):
        for law in OF_SHARES:
            columns = [_coverage(_shares, LAWS[law], outputs, n, trials) for n in SIZES]
            for place, figure in enumerate(NAMES):
                table.add(figure, law + name, *(column[place] for column in columns))
    return table


def _coverage(
    measure: Measure, law: Features, outputs: tuple[float, float], n: int, trials: int
) -> list[str]:
    """Return for each figure how many intervals hold its mean over the trials."""
    rng = np.random.default_rng(n)
    found = []
    for _ in range(trials):
        made = outputs[0] * law(rng, n) + outputs[1]
        found.append(measure(made, law(rng, REAL)))
    return [_held(scores) for scores in zip(*found, strict=True)]


def _held(scores: Sequence[Score]) -> str:
    truth = float(np.mean([score.value for score in scores if score.value is not None]))
    shown = [score for score in scores if score.low is not None]
    if len(shown) < SHOWN * len(scores):
        return "none"
    inside = [(s.low or 0.0) <= truth <= (s.high or 0.0) for s in shown]
    return share(np.array(inside), len(shown) / len(scores))


def of_one_set(trials: int) -> Table:
    """Return the coverage of figures of one set of images or of maps of noise."""
    table = Table(["figure", "law", *(f"n = {n}" for n in SIZES)])
    for figure, laws in _OF_ONE_SET.items():
        for name, measure in laws.items():
            table.add(figure, name, *(_of_one(measure, n, trials) for n in SIZES))
    return table


def _of_one(measure: Callable[[np.random.Generator, int], Score], n: int, trials: int) -> str:
    rng = np.random.default_rng(n)
    return _held([measure(rng, n) for _ in range(trials)])


def of_pairs_of_sets(trials: int) -> Table:
    """Return how often two sets of one law are told apart by their figures."""
    table = Table(["figure", "features", *(f"n = {n}" for n in SIZES)])
    for law in ("normal", "gamma(4)"):
        columns = [_found(LAWS[law], n, trials) for n in SIZES]
        for place, figure in enumerate((*_DISTANCES, *NAMES)):
            table.add(figure, law, *(column[place] for column in columns))
    return table


def _found(law: Features, n: int, trials: int) -> list[str]:
    rng, hits = np.random.default_rng(n), []
    for _ in range(trials):
        real = law(rng, REAL)
        pair = [SHIFTED[0] * law(rng, n) + SHIFTED[1] for _ in range(2)]
        one, other = (_all_figures(made, real) for made in pair)
        hits.append([_apart(a, b, n) for a, b in zip(one, other, strict=True)])
    return [share(np.array(column)) for column in zip(*hits, strict=True)]


def _apart(a: Score, b: Score, n: int) -> bool:
    if a.value is None or b.value is None or not a.replicates or not b.replicates:
        return False
    gaps, replicates = np.array([[a.value - b.value]]), np.subtract(a.replicates, b.replicates)
    (found,) = compare_sets(gaps, replicates[None, None], np.array([n]))
    return found.p < LEVEL and found.leaves_out_zero


def _all_figures(made: Array, real: Array) -> list[Score]:
    return [s for measure in (*_DISTANCES.values(), _shares) for s in measure(made, real)]


def _named(features: Array, side: str) -> tuple[Array, list[str]]:
    return features, [f"{side}{k:05d}" for k in range(len(features))]


def _shares(made: Array, real: Array) -> list[Score]:
    return prdc_scores(_named(made, "a"), _named(real, "b"), NEIGHBOURS)


_DISTANCES: dict[str, Measure] = {
    "Frechet distance": lambda a, b: [frechet_score(_named(a, "a"), _named(b, "b"))],
    "kernel distance": lambda a, b: [kernel_score(_named(a, "a"), _named(b, "b"))],
}


def _vendi(middle: float, law: str) -> Callable[[np.random.Generator, int], Score]:
    return lambda rng, n: vendi_score(_named(middle + LAWS[law](rng, n), "a"))


def _neighbours(weight: float) -> Callable[[np.random.Generator, int], Score]:
    """Return the squared correlation of noise whose pixels have a part of their left neighbour."""

    def measure(rng: np.random.Generator, n: int) -> Score:
        noise = rng.normal(size=(n, *MAP))
        noise[..., 1:] += weight * noise[..., :-1].copy()
        return neighbour_score(torch.from_numpy(noise), _named(noise, "a")[1])

    return measure


_OF_ONE_SET = {
    "Vendi score": {
        "gamma(4)": _vendi(0.0, "gamma(4)"),
        "normal, around 5": _vendi(5.0, "normal"),
        "normal, around 0 (beyond)": _vendi(0.0, "normal"),
    },
    "squared correlation of neighbouring pixels": {
        "true noise": _neighbours(0.0),
        "0.1 of the left neighbour": _neighbours(0.1),
        "0.3 of the left neighbour": _neighbours(0.3),
        "all of the left neighbour": _neighbours(1.0),
    },
}
