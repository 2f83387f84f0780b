"""Values against annotations: strict types, bounds, words, and the sentence on a wrong one."""

import math
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentbench.annotations import allowed, as_annotated, fault, fits
from latentbench.bounds import (
    Count,
    Name,
    Seed,
    Share,
    above,
    at_least,
    at_most,
    below,
    distinct,
    matches,
    not_empty,
    or_infinite,
)


class Order(Enum):
    natural = 1
    reversed = 2


Mode = Literal["inner", "outer"]
HALF_OPEN = Annotated[float, at_least(0), below(1)]
ANY_INFINITY = Annotated[float, or_infinite]


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, [0, -3, 2**31 - 1], [1.0, 1.5, True, "3", None, math.nan, 2**31, [1], {}]),
        (float, [0, -3, 2.5, 1e300], [True, "3", None, math.nan, math.inf, -math.inf, [1.0]]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["", "a"], [1, True, None, ["a"]]),
        (int | None, [None, 3], ["null", 3.0, False]),
        (Mode, ["inner"], ["iner", "Inner", None, 1, ["inner"]]),
        (Literal[1, 2], [1, 2], [True, 1.0, 3, "1"]),
        (Order, [Order.natural, "reversed"], ["random", 1, None, []]),
        (Count, [1, 1_000_000], [0, -1, 1_000_001, 1.0]),
        (Share, [0, 1, 0.5], [-1e-9, 1.0001, math.nan, False]),
        (Seed, [-(2**63), 2**63 - 1], [2**63, -(2**63) - 1, 1e3]),
        (Name, ["a"], ["", "  ", 1]),
        (HALF_OPEN, [0, 0.999], [1, 1.0, -0.1]),
        (Annotated[float, above(0)], [1e-300], [0, 0.0, -1]),
        (Annotated[float, at_most(2)], [-5, 2], [2.1]),
        (ANY_INFINITY, [math.inf, -math.inf, 1], [math.nan, "inf"]),
        (Sequence[str], [[], ["a"], ("a",)], ["a", [1], None, {"a": 1}]),
        (Annotated[Sequence[Mode], not_empty, distinct], [["inner"]], [[], ["inner", "inner"]]),
        (list[int] | None, [None, [1]], [[1.0], 1]),
        (Annotated[str, matches("[a-f]{2}", "of two letters")], ["ab"], ["abc", "xy"]),
        (Literal[0] | Annotated[int, at_least(3)], [0, 3], [1, 2, -1, False]),
        (Any, [None, 1, []], []),
        (dict, [{}], [1, "a"]),
    ],
)
def test_what_fits_and_what_does_not(annotation, good, bad):
    for value in good:
        assert fits(value, annotation), value
        assert fault("x", value, annotation) is None
    for value in bad:
        assert not fits(value, annotation), value
        assert str(fault("x", value, annotation)).startswith("x")


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Count, "a whole number from 1 to 1000000"),
        (HALF_OPEN, "a number of 0 or more and below 1"),
        (Annotated[float, above(0)] | None, "a number above 0, or null"),
        (Mode | None, "inner or outer, or null"),
        (
            Annotated[Sequence[Mode], not_empty],
            "a non-empty list, each inner or outer",
        ),
        (Order, "natural or reversed"),
        (ANY_INFINITY, "a number (infinity included)"),
        (bool, "true or false"),
        (Name, "text that is not empty"),
        (Annotated[float, above(0), at_most(2), below(2)], "a number above 0 and below 2"),
        (Annotated[float, at_most(2)], "a number at most 2"),
    ],
)
def test_what_is_allowed_is_said_in_words(annotation, words):
    assert allowed(annotation) == words


@pytest.mark.parametrize(
    ("value", "annotation", "sentence"),
    [
        (0, Count, "n must be a whole number from 1 to 1000000; got 0"),
        (True, int, "n must be a whole number; got true"),
        ("3", int, "n must be a whole number; got '3'"),
        (math.nan, Share, "n must be a number from 0 to 1; got nan"),
        ("iner", Mode, "n must be inner or outer; got 'iner', did you mean inner?"),
        (7, str, "n must be text; got 7, which is text only in quotes"),
        (
            ["outer", "inn"],
            Sequence[Mode],
            "n[1] must be inner or outer; got 'inn', did you mean inner?",
        ),
        (
            "outer",
            Sequence[Mode],
            "n must be a list, each inner or outer; got 'outer'; write [outer]",
        ),
    ],
)
def test_a_fault_says_setting_value_and_what_is_allowed(value, annotation, sentence):
    assert fault("n", value, annotation) == sentence


@given(st.integers() | st.floats() | st.booleans() | st.text() | st.none())
def test_any_value_is_taken_or_answered(value):
    for annotation in (Count, Share, Mode, Name, bool, int | None, Sequence[str]):
        sentence = fault("x", value, annotation)
        assert (sentence is None) == fits(value, annotation)


def test_whole_numbers_become_numbers_where_those_are_asked_for():
    assert repr(as_annotated(3, Share)) == "3.0"
    assert repr(as_annotated(3, float | None)) == "3.0"
    assert repr(as_annotated(3, int | float)) == "3"
    assert repr(as_annotated(True, bool)) == "True"
    assert repr(as_annotated([1, 2.5], Sequence[float])) == "[1.0, 2.5]"


def test_limits_hold_for_words_too():
    either = Annotated[Literal["zoo1", "zoo2", "zoo3"], matches("(?!zoo1$).+", "other than zoo1")]
    assert fits("zoo2", either) and not fits("zoo1", either)
    assert fault("judge", "zoo1", either).startswith("judge must be zoo2 or zoo3; got 'zoo1'")
