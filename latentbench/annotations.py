"""Does a value fit an annotation, and what would: the check behind every setting.

Understood are `int`, `float`, `bool`, `str`, `None`, `Literal`, enumerations, unions, sequences of
them, and `Annotated` with limits from `latentbench.bounds`. Any other annotation takes every value.
"""

import difflib
import functools
import math
import types
from collections.abc import Iterable, Sequence
from enum import Enum
from inspect import Parameter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from latentbench.bounds import Interval, Limit, OrInfinite, distinct, not_empty

DEFAULT = Interval(-(2**31), 2**31 - 1)  # of whole numbers whose annotation has no interval
LISTS = (list, tuple, Sequence)
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def fault(name: str, value: Any, annotation: Any) -> str | None:
    """Return one sentence on a value that its annotation refuses, or None.

    Args:
        name: the setting, as a user types it.
        value: what came.
        annotation: what the constructor says.

    Example:
        >>> from latentbench.bounds import Share
        >>> fault("method.skip", 1.5, Share)
        'method.skip must be a number from 0 to 1; got 1.5'
        >>> fault("method.mode", "iner", Literal["inner", "outer"])
        "method.mode must be inner or outer; got 'iner', did you mean inner?"
        >>> fault("method.skip", 0, Share) is None
        True
    """
    if fits(value, annotation):
        return None
    entry = _entry_of(annotation)
    if entry is not None and isinstance(value, list | tuple):
        wrong = [k for k, item in enumerate(value) if not fits(item, entry)]
        if wrong:
            return fault(f"{name}[{wrong[0]}]", value[wrong[0]], entry)
    return f"{name} must be {allowed(annotation)}; got {shown(value)}{_hint(value, annotation)}"


def fits(value: Any, annotation: Any) -> bool:
    """Return whether a value fits an annotation.

    Example:
        >>> [fits(v, int | None) for v in (3, None, True, 3.0, "3")]
        [True, True, False, False, False]
    """
    base, limits = _parted(annotation)
    if base is None or base is type(None):
        return value is None
    origin = get_origin(base)
    if origin in (Union, types.UnionType):
        return any(fits(value, member) for member in get_args(base))
    if origin is Literal:
        words = _of_literal(base, limits)
        return any(type(value) is type(word) and value == word for word in words)
    if origin in LISTS or base in LISTS:
        return _is_list_of(value, _entry(base)) and all(limit.holds(value) for limit in limits)
    if isinstance(base, type) and issubclass(base, Enum):
        return isinstance(value, base) or (isinstance(value, str) and value in base.__members__)
    if base in (int, float):
        return _is_number(value, base, limits)
    if base in (bool, str):
        return type(value) is base and all(limit.holds(value) for limit in limits)
    return base in (Any, Parameter.empty) or not isinstance(base, type) or isinstance(value, base)


def as_annotated(value: Any, annotation: Any) -> Any:
    """Return a fitting value as its annotation has it: `guidance=3` is the number 3.0.

    Example:
        >>> as_annotated(3, float | None), as_annotated([1], list[float]), as_annotated(3, int)
        (3.0, [1.0], 3)
    """
    entry = _entry_of(annotation)
    if isinstance(value, list | tuple) and entry is not None:
        return [as_annotated(item, entry) for item in value]
    kinds = _kinds(annotation)
    return float(value) if type(value) is int and float in kinds and int not in kinds else value


def allowed(annotation: Any) -> str:
    """Return in words what an annotation allows.

    Example:
        >>> from latentbench.bounds import Steps
        >>> allowed(Steps | None)
        'a whole number from 1 to 1000, or null'
    """
    base, limits = _parted(annotation)
    tail = "".join(f" {limit.words}" for limit in limits)
    if base is None or base is type(None):
        return "null"
    origin = get_origin(base)
    if origin in (Union, types.UnionType):
        return ", or ".join(allowed(member) for member in get_args(base))
    if origin is Literal:
        return _either(_of_literal(base, limits))
    if origin in LISTS or base in LISTS:
        filled = "non-empty " if not_empty in limits else ""
        entries = " of distinct entries" if distinct in limits else ""
        return f"a {filled}list{entries}, each {allowed(_entry(base))}"
    if isinstance(base, type) and issubclass(base, Enum):
        return _either(base.__members__)
    return KINDS.get(base, getattr(base, "__name__", str(base))) + tail


def shown(value: Any) -> str:
    """Return a value as a command line would have it, text in quotes.

    Example:
        >>> [shown(v) for v in (None, True, "a", 0.5)]
        ['null', 'true', "'a'", '0.5']
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return repr(value) if not isinstance(value, Enum) else value.name


def _parted(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an annotation without its limits, and the limits."""
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    base, *extra = get_args(annotation)
    intervals = [limit for limit in extra if isinstance(limit, Interval)]
    others = [limit for limit in extra if isinstance(limit, Limit) and limit not in intervals]
    return base, (*([functools.reduce(Interval.__and__, intervals)] if intervals else []), *others)


def _of_literal(base: Any, limits: Sequence[Any]) -> list[Any]:
    """Return the words of a Literal that keep to its limits."""
    return [word for word in get_args(base) if all(limit.holds(word) for limit in limits)]


def _is_number(value: Any, base: type, limits: Sequence[Any]) -> bool:
    if type(value) not in ((int,) if base is int else (int, float)):
        return False
    if base is float and not math.isfinite(value):
        unlimited = any(isinstance(limit, OrInfinite) for limit in limits)
        if math.isnan(value) or not unlimited:
            return False
    intervals = [limit for limit in limits if isinstance(limit, Interval)]
    return all(i.holds(value) for i in intervals or ([DEFAULT] if base is int else []))


def _is_list_of(value: Any, entry: Any) -> bool:
    return isinstance(value, list | tuple) and all(fits(item, entry) for item in value)


def _entry(base: Any) -> Any:
    """Return the annotation of a sequence's entries."""
    arguments = get_args(base)
    return arguments[0] if arguments else Any


def _entry_of(annotation: Any) -> Any:
    """Return the annotation of a list's entries, where the annotation takes a list; else None."""
    base, _ = _parted(annotation)
    if get_origin(base) in LISTS:
        return _entry(base)
    members = get_args(base) if get_origin(base) in (Union, types.UnionType) else ()
    return next((e for e in map(_entry_of, members) if e is not None), None)


def _kinds(annotation: Any) -> set[Any]:
    """Return the plain types that an annotation takes."""
    base, _ = _parted(annotation)
    if get_origin(base) in (Union, types.UnionType):
        return set().union(*map(_kinds, get_args(base)))
    return {type(w) for w in get_args(base)} if get_origin(base) is Literal else {base}


def _hint(value: Any, annotation: Any) -> str:
    """Return what was probably meant."""
    entry = _entry_of(annotation)
    if entry is not None and not isinstance(value, list | tuple) and fits(value, entry):
        return f"; write [{value}]"
    if isinstance(value, str):
        near = difflib.get_close_matches(value, _words(annotation), n=1)
        return f", did you mean {near[0]}?" if near else ""
    text = str in _kinds(annotation) and not _words(annotation)
    return ", which is text only in quotes" if text else ""


def _words(annotation: Any) -> list[str]:
    """Return all words that an annotation names."""
    base, limits = _parted(annotation)
    if get_origin(base) is Literal:
        return [word for word in _of_literal(base, limits) if isinstance(word, str)]
    if isinstance(base, type) and issubclass(base, Enum):
        return list(base.__members__)
    return [word for member in get_args(base) for word in _words(member)]


def _either(words: Iterable[Any]) -> str:
    """Return words as "a, b or c".

    Example:
        >>> _either(["a", "b", "c"])
        'a, b or c'
    """
    *first, last = [str(word) for word in words]
    return f"{', '.join(first)} or {last}" if first else last
