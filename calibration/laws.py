"""Laws of the values of an image, each with its mean."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from latentbench.intervals import Array

Draw = Callable[[np.random.Generator, tuple[int, ...]], Array]


@dataclass(frozen=True)
class Law:
    """A law of values.

    Args:
        name: as tables show it.
        draw: values of a shape.
        mean: their expectation.
    """

    name: str
    draw: Draw
    mean: float


def _zeros(share: float) -> Draw:
    """Return exponential values, this share of which is 0."""
    return lambda rng, shape: rng.exponential(size=shape) * (rng.random(shape) >= share)


def _log_normal(spread: float) -> Law:
    return Law(
        f"log-normal, sd of the logarithm {spread:g}",
        lambda rng, shape: rng.lognormal(0, spread, shape),
        float(np.exp(spread**2 / 2)),
    )


HELD = (
    Law("normal", lambda rng, shape: rng.normal(size=shape), 0.0),
    Law("uniform", lambda rng, shape: rng.random(shape), 0.5),
    Law("Student's t, 3 degrees of freedom", lambda rng, shape: rng.standard_t(3, shape), 0.0),
    Law("exponential", lambda rng, shape: rng.exponential(size=shape), 1.0),
    Law("Beta(.5, 3), like a leak", lambda rng, shape: rng.beta(0.5, 3, shape), 0.5 / 3.5),
    _log_normal(0.5),
    _log_normal(1.0),
    Law("exponential, half of it 0", _zeros(0.5), 0.5),
    Law("exponential, 80% of it 0", _zeros(0.8), 0.2),
    Law("exponential, 90% of it 0", _zeros(0.9), 0.1),
    Law(
        "difference of exponentials, one twice the other",
        lambda rng, shape: rng.exponential(size=shape) - rng.exponential(0.5, shape),
        0.5,
    ),
)
"""Laws of means for which the interval of `latentbench.intervals.Units` is meant."""

BEYOND = (
    _log_normal(1.5),
    Law(
        "normal around .9, one in 20 around .1",
        lambda rng, shape: rng.normal(0.9, 0.02, shape) - 0.8 * (rng.random(shape) < 0.05),
        0.86,
    ),
)
"""Laws that a sample of few images cannot reveal: no interval from the values alone holds."""
