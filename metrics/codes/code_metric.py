"""Base of metrics that read the codes of a set of images, and what they share."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from latentbench.errors import BadInput
from latentbench.metric import Metric
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from metrics.jackknife import GROUPS, Array, groups, replicated_score, too_few

Mask = npt.NDArray[np.bool_]
JUMPS = "no interval: undefined without some of the images"
TEST = 3  # one image in so many is held out where something is fitted
MUCH = 0.25  # share of a space's variance that one image should not hold


class CodeMetric(Metric):
    """Collects what `needs` names; the score is a statistic of the whole set.

    Rows are sorted by id, so neither their order nor their batches change a figure.
    """

    needs = frozenset({"codes", "factors"})
    fewest = 2

    def add(self, samples: Samples) -> None:
        """Keep codes, factors and ids."""
        found = samples.tensors()
        columns = {name: found[name].double().flatten(1) for name in sorted(self.needs)}
        self.seen.append(samples.ids, samples.groups, **columns)

    def compute(self) -> dict[str, Score]:
        """Return the scores of the collected set; None for each below `fewest` images."""
        n = len(self.seen.names())
        if n < self.fewest:
            few = Score(None, n, note=f"{n} images, at least {self.fewest} needed")
            return dict.fromkeys(self.figures, few)
        order = self.seen.order()
        rows = {name: column[order].numpy() for name, column in self.seen.columns().items()}
        return self.scores(rows, [self.seen.ids[k] for k in order])

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the scores of the sorted rows, by field name."""
        raise NotImplementedError


def jackknifed(
    statistic: Callable[[Mask], Mapping[str, float]], ids: Sequence[str], note: str = ""
) -> dict[str, Score]:
    """Return several figures of one set, each with its delete-a-group jackknife interval.

    Args:
        statistic: figures of the rows where the mask is true; NaN where undefined.
        ids: id of each row; rows of one id are left out together.
        note: what to say of every figure.
    """
    n, value = len(set(ids)), statistic(np.ones(len(ids), dtype=bool))
    parts = [note] if note else []
    if why_not := too_few(ids):
        text = "; ".join([why_not, *parts])
        return {name: _score(x, n, text) for name, x in value.items()}
    out = groups(ids)
    replicates = [statistic(out != k) for k in range(GROUPS)]
    return {name: _score(x, n, note, [r[name] for r in replicates]) for name, x in value.items()}


def _score(value: float, n: int, note: str, replicates: Sequence[float] = ()) -> Score:
    """Return a score, with an interval where there are replicates; an undefined value is None."""
    if not np.isfinite(value):
        return Score(None, n, note="; ".join(filter(None, ["undefined on these codes", note])))
    if not np.isfinite(replicates).all():
        return Score(float(value), n, note="; ".join(filter(None, [JUMPS, note])))
    if not len(replicates):
        return Score(float(value), n, note=note)
    return add_note(replicated_score(float(value), n, [float(x) for x in replicates]), note)


def held_out(ids: Sequence[str]) -> Mask:
    """Return which rows are for testing: a third of the images.

    Example:
        >>> held_out(["a", "b", "c", "d"]).tolist()
        [False, False, True, False]
    """
    return groups(ids, TEST) == TEST - 1


def that_vary(factors: Array, *parts: Mask) -> Mask:
    """Return which factors differ among the rows of each part: nothing can be known of others.

    Args:
        factors: ``[n, f]``.
        parts: rows; by default all of them.

    Example:
        >>> that_vary(np.array([[0.0, 1.0], [1.0, 1.0]])).tolist()
        [True, False]
    """
    whole = np.ones(len(factors), dtype=bool)
    return np.all([np.ptp(factors[part], axis=0) > 0 for part in parts or (whole,)], axis=0)


def chosen(factors: Array, which: Mask) -> Array:
    """Return some columns of factors; all of them as they are, to the last bit of any sum."""
    return factors if which.all() else factors[:, which]


def left_out(which: Mask) -> str:
    """Return how many factors are left out, in words."""
    flat = int((~which).sum())
    return f"{flat} of {len(which)} factors do not vary and are left out" if flat else ""


def top_gap(scores: Float[np.ndarray, "d f"]) -> Float[np.ndarray, " f"]:
    """Return, per factor, by how much the best code beats the second best.

    Example:
        >>> top_gap(np.array([[0.9, 0.2], [0.3, 0.2]])).round(6).tolist()
        [0.6, 0.0]
    """
    best = np.sort(scores, axis=0)[::-1]
    return best[0] - (best[1] if len(best) > 1 else 0.0)


def shared_outlier(one: Array, other: Array, ids: Sequence[str]) -> str:
    """Return which image holds much of the variance of both spaces, in words; "" where none does.

    Example:
        >>> far = np.array([[0.0], [1.0], [2.0], [90.0]])
        >>> shared_outlier(far, -far, "abcd")
        'd alone holds 75% and 75% of the variance of the two spaces'
    """
    squares = [np.square(x - x.mean(0)).sum(1) for x in (one, other)]
    shares = [s / max(s.sum(), np.finfo(float).tiny) for s in squares]
    worst = int(np.minimum(*shares).argmax())
    held = [float(share[worst]) for share in shares]
    if min(held) < MUCH:
        return ""
    both = " and ".join(f"{x:.0%}" for x in held)
    return f"{ids[worst]} alone holds {both} of the variance of the two spaces"


def check_pairs(codes: Array, factors: Array, who: str) -> None:
    """Refuse codes and factors that do not belong together, or that are not finite."""
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors):
        raise BadInput(
            f"{who} takes codes [n, d] and factors [n, f] of the same images, got "
            f"{codes.shape} and {factors.shape}"
        )
    if not (np.isfinite(codes).all() and np.isfinite(factors).all()):
        raise BadInput(f"{who} takes finite codes and factors, got NaN or infinity")
