"""Coverage of intervals of figures of sets: their expected figure at this n."""

from collections.abc import Callable

import numpy as np

from calibration.table import Table, share
from latentbench.intervals import Array
from latentbench.types import Score
from metrics.sets.frechet import frechet_score
from metrics.sets.kernel import kernel_score
from metrics.sets.prdc import NAMES, prdc_scores

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
SHIFTED = 1.2, 0.3  # scale and shift of the outputs against the real images


def of_sets(trials: int) -> Table:
    """Return the coverage of distances of sets and of precision and recall."""
    table = Table(["figure", "features", *(f"n = {n}" for n in SIZES)])
    for figure, measure in _FIGURES.items():
        for name, law in LAWS.items():
            table.add(figure, name, *(_coverage(measure, law, n, trials) for n in SIZES))
    for place, figure in enumerate(NAMES):
        cells = [_coverage(_prdc(place), LAWS["normal"], n, trials) for n in SIZES]
        table.add(figure, "normal", *cells)
    return table


def _coverage(measure: Callable[[Array, Array], Score], law: Features, n: int, trials: int) -> str:
    rng = np.random.default_rng(n)
    scores = []
    for _ in range(trials):
        outputs = SHIFTED[0] * law(rng, n) + SHIFTED[1]
        scores.append(measure(outputs, law(rng, REAL)))
    truth = float(np.mean([score.value for score in scores]))
    shown = [score for score in scores if score.low is not None]
    if len(shown) < SHOWN * trials:
        return "none"
    inside = [(s.low or 0.0) <= truth <= (s.high or 0.0) for s in shown]
    return share(np.array(inside), len(shown) / trials)


def _named(features: Array, side: str) -> tuple[Array, list[str]]:
    return features, [f"{side}{k:05d}" for k in range(len(features))]


def _prdc(place: int) -> Callable[[Array, Array], Score]:
    return lambda a, b: prdc_scores(_named(a, "a"), _named(b, "b"), NEIGHBOURS)[place]


_FIGURES: dict[str, Callable[[Array, Array], Score]] = {
    "Frechet distance": lambda a, b: frechet_score(_named(a, "a"), _named(b, "b")),
    "kernel distance": lambda a, b: kernel_score(_named(a, "a"), _named(b, "b")),
}
