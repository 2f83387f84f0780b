"""Which values a setting takes, said in its annotation and checked in one place.

A constructor writes `n: Annotated[int, at_least(1)]` or `mode: Literal["inner", "outer"]` and
checks nothing itself: `latentbench.cells.parts.build` refuses a wrong value before anything is
loaded. Values are taken strictly: `1.5`, `true` and `"3"` are not whole numbers, and a number is
finite unless its annotation holds `or_infinite`.
"""

import math
import re
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Interval:
    """Numbers between two ends.

    Args:
        low: lower end.
        high: upper end.
        low_open: the lower end itself is not allowed.
        high_open: the upper end itself is not allowed.
    """

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def holds(self, value: Any) -> bool:
        """Return whether a number is between the ends."""
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    @property
    def words(self) -> str:
        """What completes "a number ..."."""
        if math.isfinite(self.low) and math.isfinite(self.high):
            if not self.low_open and not self.high_open:
                return f"from {_plain(self.low)} to {_plain(self.high)}"
            return f"{self._above()} and {self._below()}"
        return self._above() if math.isfinite(self.low) else self._below()

    def _above(self) -> str:
        return f"above {_plain(self.low)}" if self.low_open else f"of {_plain(self.low)} or more"

    def _below(self) -> str:
        return f"below {_plain(self.high)}" if self.high_open else f"at most {_plain(self.high)}"

    def __and__(self, other: "Interval") -> "Interval":
        """Return the numbers that lie in both."""
        low, low_open = max((self.low, self.low_open), (other.low, other.low_open))
        high, closed = min((self.high, not self.high_open), (other.high, not other.high_open))
        return Interval(low, high, low_open, not closed)


@dataclass(frozen=True)
class NotEmpty:
    """Text of at least one character, or a list of at least one entry."""

    def holds(self, value: Sized) -> bool:
        """Return whether something is in it; blanks alone are nothing."""
        return bool(value.strip()) if isinstance(value, str) else len(value) > 0

    words = "that is not empty"


@dataclass(frozen=True)
class Distinct:
    """A list that holds no entry twice."""

    def holds(self, value: Any) -> bool:
        """Return whether all entries differ."""
        return len(set(map(repr, value))) == len(value)

    words = "of distinct entries"


@dataclass(frozen=True)
class Pattern:
    """Text of a form.

    Args:
        regex: what the whole text must match.
        words: the form, completing "text ...".
    """

    regex: str
    words: str

    def holds(self, value: str) -> bool:
        """Return whether the whole text has the form."""
        return re.fullmatch(self.regex, value) is not None


@dataclass(frozen=True)
class OrInfinite:
    """A number that may also be infinite (never NaN)."""

    words = "(infinity included)"

    def holds(self, value: float) -> bool:
        """Return whether it is a number at all."""
        return not math.isnan(value)


Limit = Interval | NotEmpty | Distinct | Pattern | OrInfinite


def at_least(low: float) -> Interval:
    """Return the limit of numbers that are `low` or more."""
    return Interval(low=low)


def at_most(high: float) -> Interval:
    """Return the limit of numbers that are `high` or less."""
    return Interval(high=high)


def above(low: float) -> Interval:
    """Return the limit of numbers greater than `low`."""
    return Interval(low=low, low_open=True)


def below(high: float) -> Interval:
    """Return the limit of numbers less than `high`."""
    return Interval(high=high, high_open=True)


def between(low: float, high: float) -> Interval:
    """Return the limit of numbers from `low` to `high`, both ends included."""
    return Interval(low=low, high=high)


def matches(regex: str, words: str) -> Pattern:
    """Return the limit of texts that match a regular expression as a whole.

    Args:
        regex: the regular expression.
        words: what it means, completing "text ...".
    """
    return Pattern(regex, words)


not_empty, distinct, or_infinite = NotEmpty(), Distinct(), OrInfinite()

Count = Annotated[int, between(1, 1_000_000)]  # of things made or held in memory; more is a slip
SetSize = Annotated[int, between(2, 1_000_000)]  # of a set that has a spread
Steps = Annotated[int, between(1, 1000)]  # sampling steps; schedules are trained with 1,000
Share = Annotated[float, between(0, 1)]
Positive = Annotated[float, above(0), at_most(1_000_000)]
NotNegative = Annotated[float, between(0, 1_000_000)]
Guidance = Annotated[float, between(0, 1000)]  # scale of classifier-free guidance; 1 is off
Size = Annotated[int, between(1, 8192)]  # pixels per side
Seed = Annotated[int, between(-(2**63), 2**63 - 1)]
NumpySeed = Annotated[int, between(0, 2**32 - 1)]
Name = Annotated[str, not_empty]  # of a file, a folder, an option, a column
Dtype = Literal["float32", "float16", "bfloat16"]
TimeNodes = Sequence[Annotated[float, between(0, 1000)]]  # blocks of times, see models/time_nodes


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
