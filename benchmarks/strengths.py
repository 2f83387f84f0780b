"""Native strengths, chosen by what a judge reads on images that are not scored."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentbench.errors import BadInput, NoEffect

ERROR_TRIALS, GAIN_TRIALS = 3, 5  # strengths tried after the curve, for each of the two
CLOSE = 0.03  # a gain this near to the wanted one ends the trials
MARGIN = 0.15  # a trial stays this share of the bracket away from its ends
WITNESS = 0.25  # of the wanted gain, that the image must move towards the true counterfactual


@dataclass(frozen=True)
class Point:
    """What the judges read on edits of one strength.

    Args:
        error: distance to the answer / that of the sources, by the judge that matches.
        gain: share of the asked change, by the judge that matches.
        scorer_gain: the same by the judge that scores.
        image_gain: part of the true change of the image that its change has.
    """

    error: float
    gain: float
    scorer_gain: float
    image_gain: float


def choose(
    read: Callable[[Sequence[float]], Mapping[float, Point]],
    curve: Sequence[float],
    gain: float,
    tolerance: float,
    effective: Callable[[float], float],
) -> dict[str, Any]:
    """Return the curve, the strength of least error and that of matched effect, in plain numbers.

    A strength between two of the curve that a method refuses, or at which it changes nothing, is
    listed and ends the trials; one that works at a strength that was tried ends them unseen.

    Args:
        read: gives what is read at some strengths.
        curve: rising strengths, the first one 0.
        gain: the effect to match.
        tolerance: how far from it a gain may be.
        effective: the strength that the method works at, see `Editor.effective_strength`.
    """
    points, refused = dict(read(curve)), []
    searches = (_next_for_error, ERROR_TRIALS), (lambda x: _next_for_gain(x, gain), GAIN_TRIALS)
    for propose, trials in searches:
        for _ in range(trials):
            trial = propose(points)
            if trial is None or effective(trial) in {effective(s) for s in points}:
                break
            try:
                points |= read([trial])
            except (BadInput, NoEffect):
                refused.append(trial)
                break
    main = min(_positive(points), key=lambda s: (points[s].error, s))
    effect = matched(points, gain)
    found = points[effect]
    return {
        "strengths": list(curve[1:]),
        "gains": [points[s].gain for s in curve[1:]],
        "errors": [points[s].error for s in curve[1:]],
        "main": main,
        "main_error": points[main].error,
        "matched": effect,
        "matched_gain": found.gain,
        "matched_scorer_gain": found.scorer_gain,
        "matched_image_gain": found.image_gain,
        "reached": reached(found, gain, tolerance),
        "refused": refused,
        "tried": sorted(points),
    }


def reached(point: Point, gain: float, tolerance: float) -> bool:
    """Return whether both judges read the wanted gain, and the image has moved to the truth.

    What one judge reads, and the image does not show, is an edit for that judge alone.

    Example:
        >>> reached(Point(0.2, 0.5, 0.1, 0.0), 0.5, 0.1)
        False
    """
    near = all(abs(read - gain) <= tolerance + 1e-9 for read in (point.gain, point.scorer_gain))
    return near and point.image_gain >= WITNESS * gain


def matched(points: Mapping[float, Point], gain: float) -> float:
    """Return the strength whose gain is nearest to the wanted one, up to its first upward crossing.

    Beyond that a gain may fall and come back by chance, in images that have broken down.

    Example:
        >>> curve = {0.0: 0.0, 1.0: 0.4, 2.0: 0.7, 3.0: 0.5}
        >>> matched({s: Point(0, g, g, g) for s, g in curve.items()}, 0.5)
        1.0
    """
    crossing = _crossing(points, gain)
    last = max(points) if crossing is None else crossing[1]
    inside = [s for s in _positive(points) if s <= last]
    return min(inside, key=lambda s: (abs(points[s].gain - gain), s))


def _positive(points: Mapping[float, Point]) -> list[float]:
    return [strength for strength in points if strength > 0]


def _crossing(points: Mapping[float, Point], gain: float) -> tuple[float, float] | None:
    """Return the first two neighbours between which the gain rises to the wanted one."""
    for left, right in itertools.pairwise(sorted(points)):
        if points[left].gain < gain <= points[right].gain:
            return left, right
    return None


def _next_for_error(points: Mapping[float, Point]) -> float | None:
    """Return the middle of the wider gap beside the best strength; of equal ones the better."""
    best = min(_positive(points), key=lambda s: (points[s].error, s))
    if points[best].error == 0:
        return None
    order = sorted(points)
    place = order.index(best)
    beside = order[max(0, place - 1) : place] + order[place + 1 : place + 2]

    def narrow_then_bad(strength: float) -> tuple[float, float]:
        return -round(abs(strength - best) / order[-1], 6), points[strength].error

    return (best + min(beside, key=narrow_then_bad)) / 2


def _next_for_gain(points: Mapping[float, Point], gain: float) -> float | None:
    """Return a strength within the first crossing of the gain, or None where none is wanted.

    Linear between the ends, but never so near to one that a steep curve is not narrowed.

    Example:
        >>> curve = {0.0: 0.0, 1.0: 1.0, 2.0: 1.0}
        >>> _next_for_gain({s: Point(0, g, g, g) for s, g in curve.items()}, 0.5)
        0.5
    """
    crossing = _crossing(points, gain)
    if crossing is None or abs(points[matched(points, gain)].gain - gain) <= CLOSE:
        return None
    left, right = crossing
    low, high = points[left].gain, points[right].gain
    share = min(max((gain - low) / (high - low), MARGIN), 1 - MARGIN)
    return left + share * (right - left)
