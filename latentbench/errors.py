"""Typed failures. Each message says what was wrong, what came, what is allowed, what to do."""

import difflib
from collections.abc import Iterable


class LatentbenchError(Exception):
    """Base of every error that the suite raises on purpose."""


class Incompatible(LatentbenchError):
    """This method cannot run on this model, data set or benchmark: the cell is skipped."""


class BadInput(LatentbenchError, ValueError):
    """A name, shape, file or value that the suite cannot use."""


class NotMeasurable(BadInput):
    """Samples or a data set in which a metric has nothing to measure: it is switched off."""


class WrongCommand(BadInput):
    """A command that cannot be carried out: refused before any work, whatever cells it names."""


class MissingWeights(LatentbenchError):
    """Weights are not on disk, or their hash differs from the card's."""


class HookNeverFired(LatentbenchError):
    """An intervention was asked for, and the network never called it."""


class NoEffect(LatentbenchError):
    """An edit at a non-zero strength, or a composition, changed nothing."""


class BadOutput(LatentbenchError):
    """A method returned something else than its verb promises."""


class NotFinite(LatentbenchError):
    """A tensor holds NaN or infinity."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """Return the error for a name that does not exist, with near matches and the whole list.

    Example:
        >>> str(unknown("factor", "smle", ["smile", "hat"]))
        "unknown factor 'smle'; did you mean smile? known: hat, smile"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    return BadInput(f"unknown {kind} {name!r}{hint} known: {', '.join(known)}")
