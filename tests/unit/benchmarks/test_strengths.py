"""Choosing strengths from what is read along a curve."""

import pytest

from benchmarks.strengths import Point, _next_for_error, _next_for_gain, choose, matched, reached
from latentbench.errors import BadInput


def curve(*gains):
    return {float(s): Point(1 - g, g, g, g) for s, g in enumerate(gains)}


def test_the_gain_is_matched_at_its_first_upward_crossing():
    """Further on the images have broken down, and a gain of .5 is chance."""
    assert matched(curve(0, 0.9, 0.1, 0.5), 0.5) == 1
    assert matched(curve(0, 0.3, 0.45, 0.4), 0.5) == 2  # never reached: the nearest
    assert matched(curve(0.5, 0.2, 0.1), 0.5) == 1  # strength 0 is no edit


def test_trials_narrow_the_first_bracket():
    assert _next_for_gain(curve(0, 0.9, 0.4, 1.0), 0.45) == pytest.approx(0.5)
    assert _next_for_gain(curve(0, 0.46), 0.45) is None  # near enough
    assert _next_for_gain(curve(0, 0.2), 0.5) is None  # never reached
    assert _next_for_gain(curve(0, 1.0), 0.05) == pytest.approx(0.15)  # keeps off the ends


def test_trials_for_the_error_halve_the_wider_gap_beside_the_best():
    assert _next_for_error(curve(0, 0.8, 0.2)) == pytest.approx(1.5)
    assert _next_for_error(curve(0.5, 0.8, 0.2)) == pytest.approx(0.5)
    assert _next_for_error(curve(0, 0.5, 0.8)) == pytest.approx(1.5)
    assert _next_for_error(curve(0, 0.5, 1.0)) is None  # perfect
    flat = curve(0, 0.8, 0.2) | {0.5: Point(1.0, 0, 0, 0)}
    assert _next_for_error(flat) == pytest.approx(1.5)  # left of it nothing is gained


@pytest.mark.parametrize(
    ("point", "yes"),
    [
        (Point(0, 0.5, 0.5, 0.5), True),
        (Point(0, 0.6, 0.4, 0.2), True),
        (Point(0, 0.61, 0.5, 0.5), False),  # coarse
        (Point(0, 0.5, 0.1, 0.5), False),  # an edit for one judge alone
        (Point(0, 0.5, 0.5, 0.01), False),  # for both, and for no one else
    ],
)
def test_reached_needs_both_judges_and_the_image(point, yes):
    assert reached(point, 0.5, 0.1) == yes


def test_a_method_that_breaks_down_late_is_judged_where_it_is_right():
    def read(strengths):
        return {
            s: Point(1 - 4 * s, 4 * s, 4 * s, 1.0) if s < 0.25 else Point(9, 0.5, 0.5, 0.5)
            for s in strengths
        }

    found = choose(read, [0.0, 1 / 3, 2 / 3, 1.0], 0.5, 0.1, float)
    assert found["main"] < 0.25 and found["main_error"] < 0.5
    assert found["matched"] < 0.34


def test_a_strength_that_a_method_refuses_is_listed():
    def read(strengths):
        if min(s for s in strengths if s) < 1:
            raise BadInput("strength 0.5 is 0 of 1 steps")
        return {s: Point(1.0, 0.4 * s, 0.4 * s, 0.4 * s) for s in strengths}

    found = choose(read, [0.0, 1.0, 2.0], 0.3, 0.1, float)
    assert found["refused"] and found["matched"] == 1 and found["reached"]


def test_no_strength_is_tried_that_works_as_another_one_did():
    def tenths(strength):
        return int(strength * 10 + 1e-6) / 10

    def read(strengths):
        points = {s: tenths(s) for s in strengths}
        return {s: Point(abs(0.6 - x), x, x, x) for s, x in points.items()}

    tried = choose(read, [0.0, 1 / 3, 2 / 3, 1.0], 0.45, 0.1, tenths)["tried"]
    assert len({tenths(s) for s in tried}) == len(tried)
    assert len(choose(read, [0.0, 1 / 3, 2 / 3, 1.0], 0.45, 0.1, float)["tried"]) > len(tried)
