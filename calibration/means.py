"""Coverage of intervals of means, rates, and figures of rows that come in clusters."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from calibration.laws import BEYOND, HELD, Law
from calibration.table import Table, share
from latentbench.intervals import Array, Units, wilson
from latentbench.means import crossed_mean
from latentbench.metric import linearised
from latentbench.statistics import mean_score, rate_score
from latentbench.types import Score

SIZES = (8, 12, 16, 32, 64, 128)
RESAMPLES = 1000
SHOWN = 0.1  # share of samples below which an interval that is shown at all is not judged


def of_means(trials: int) -> Table:
    """Return the coverage of the mean's interval next to those of two others."""
    rng = np.random.default_rng(0)
    table = Table(["law", "interval", *(f"n = {n}" for n in SIZES)])
    for law in (*HELD, *BEYOND):
        held: dict[str, list[str]] = {"t": [], "expanded percentile": [], "used": []}
        for n in SIZES:
            values = law.draw(rng, (trials, n))
            held["t"].append(share(_holds(_t(values), law)))
            held["expanded percentile"].append(share(_holds(_percentile(values, rng), law)))
            held["used"].append(_used(values, law))
        for name, shares in held.items():
            table.add(law.name + (" (beyond)" if law in BEYOND else ""), name, *shares)
    return table


def _used(values: Array, law: Law) -> str:
    units = [Units(row) for row in values]
    shown = [unit for unit in units if not unit.why_no_interval()]
    if len(shown) < SHOWN * len(units):
        return "none"
    inside = np.array([low <= law.mean <= high for low, high in (u.interval() for u in shown)])
    return share(inside, len(shown) / len(units))


def _holds(ends: tuple[Array, Array], law: Law) -> npt.NDArray[np.bool_]:
    return (ends[0] <= law.mean) & (law.mean <= ends[1])


def _t(values: Array) -> tuple[Array, Array]:
    n = values.shape[1]
    half = stats.t.ppf(0.975, n - 1) * values.std(1, ddof=1) / np.sqrt(n)
    return values.mean(1) - half, values.mean(1) + half


def _percentile(values: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return Hesterberg's expanded percentile intervals, all from the same resamples."""
    n = values.shape[1]
    counts = rng.multinomial(n, np.full(n, 1 / n), RESAMPLES)
    tail = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
    low, high = np.quantile(values @ counts.T / n, [tail, 1 - tail], axis=1)
    return low, high


def of_rates(trials: int) -> Table:
    """Return the coverage of Wilson's interval, on average over rates of a range."""
    rng = np.random.default_rng(1)
    table = Table(["rates", *(f"n = {n}" for n in SIZES)])
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        cells = []
        for n in SIZES:
            ends = np.array([wilson(k, n) for k in range(n + 1)])
            rates = rng.uniform(low, high, 10 * trials)
            found = ends[rng.binomial(n, rates)]
            cells.append(share((found[:, 0] <= rates) & (rates <= found[:, 1])))
        table.add(f"{low:g} to {high:g}, uniform", *cells)
    return table


def of_clusters(trials: int) -> Table:
    """Return the coverage of figures whose rows come in clusters of an image."""
    rng = np.random.default_rng(2)
    table = Table(["figure", *(f"n = {n}" for n in SIZES)])
    for name, draw in _CLUSTERED.items():
        table.add(name, *(_clustered(draw, n, trials, rng) for n in SIZES))
    return table


Clustered = Callable[[np.random.Generator, int], tuple[Score, float]]


def _clustered(draw: Clustered, n: int, trials: int, rng: np.random.Generator) -> str:
    found = [draw(rng, n) for _ in range(trials)]
    shown = [(score, truth) for score, truth in found if score.low is not None]
    if len(shown) < SHOWN * trials:
        return "none"
    inside = [(s.low or 0.0) <= truth <= (s.high or 0.0) for s, truth in shown]
    return share(np.array(inside), len(shown) / trials)


def _rows(rng: np.random.Generator, n: int) -> tuple[npt.NDArray[np.intp], list[str]]:
    """Return the image of each row: one to four edits per image."""
    image = np.repeat(np.arange(n, dtype=np.intp), rng.integers(1, 5, n))
    return image, [str(k) for k in image]


def _edits(rng: np.random.Generator, n: int) -> tuple[Score, float]:
    image, ids = _rows(rng, n)
    values = rng.exponential(size=n)[image] * rng.exponential(size=len(image))
    return mean_score(torch.from_numpy(values), ids), 1.0


def _rate(rng: np.random.Generator, n: int) -> tuple[Score, float]:
    image, ids = _rows(rng, n)
    hits = rng.random(len(image)) < rng.beta(0.5, 1.5, n)[image]
    return rate_score(torch.from_numpy(hits.astype(float)), ids), 0.25


def _ratio(sizes: Callable[[np.random.Generator, int], Array]) -> Clustered:
    def draw(rng: np.random.Generator, n: int) -> tuple[Score, float]:
        image, ids = _rows(rng, n)
        below = sizes(rng, n)[image] * rng.gamma(4, 0.25, len(image))
        above = below * rng.beta(1, 3, len(image))
        everyone = torch.ones(len(ids), dtype=torch.bool)
        values = linearised(torch.from_numpy(above), torch.from_numpy(below), everyone)
        return mean_score(values, ids), 0.25

    return draw


_CLUSTERED: dict[str, Clustered] = {
    "mean over edits, 1 to 4 per image, exponential images": _edits,
    "rate over edits, 1 to 4 per image, rates of images Beta(.5, 1.5)": _rate,
    "ratio of sums, gamma denominators": _ratio(lambda rng, n: rng.gamma(4, 0.25, n)),
    "ratio of sums, log-normal denominators (.5)": _ratio(lambda rng, n: rng.lognormal(0, 0.5, n)),
    "ratio of sums, log-normal denominators (1) (beyond)": _ratio(
        lambda rng, n: rng.lognormal(0, 1, n)
    ),
}


def of_seeds(trials: int) -> Table:
    """Return the coverage of means over seeds and 16 images."""
    rng, n = np.random.default_rng(3), 16
    table = Table(["spread of seeds, images, both", *(f"{s} seeds" for s in (2, 3, 5))])
    laws = (("normal", HELD[0]), ("exponential", HELD[3]))
    for name, law in laws:
        for parts in ((1.0, 0.1, 0.1), (0.2, 1.0, 0.5), (0.0, 1.0, 1.0)):
            cells = [
                share(np.array(list(_crossed(rng, law, parts, s, n, trials)))) for s in (2, 3, 5)
            ]
            table.add(f"{name} images; {', '.join(f'{x:g}' for x in parts)}", *cells)
    return table


def _crossed(
    rng: np.random.Generator,
    law: Law,
    parts: tuple[float, float, float],
    seeds: int,
    n: int,
    trials: int,
) -> Iterable[bool]:
    of_seeds, of_images, rest = parts
    for _ in range(trials):
        values = (
            of_seeds * rng.normal(size=(seeds, 1))
            + of_images * (law.draw(rng, (1, n)) - law.mean)
            + rest * (law.draw(rng, (seeds, n)) - law.mean)
        )
        low, high = crossed_mean(values).joined(Units(values.mean(0)))
        yield low <= 0 <= high
