"""Agreement: how far this suite's figures are from those of reference implementations.

The cases are in the folder `agreement` of the checkout, one file per kind; this module runs them
and writes the table.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

Measure = Callable[[], tuple[Any, Any]]
HEADS = ("figure", "reference", "version", "compared on", "largest difference", "tolerance")
BEGINNING = """# Agreement with reference implementations

`make agreement` (`python -m agreement`) writes this page, and exits with an error if a tolerance is
exceeded. Both sides get the same features, or the same images and the same network with seeded
random weights. A relative difference is the largest absolute difference divided by the largest
reference value. The version "definition" means that no installable package has the figure: the
formula was written a second time, from its source, in `agreement/`.
"""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        figure: the figure, or what of it is compared.
        reference: package and function that it is compared with.
        package: distribution whose version is shown; empty for a formula written out again.
        on: what both sides get, in words.
        tolerance: largest difference that passes.
        measure: gives both values, arrays of one shape.
        relative: whether differences are relative to the largest reference value.
        extra: whether only `make agreement` installs the package.
        quick: whether it takes a second or two.
    """

    figure: str
    reference: str
    package: str
    on: str
    tolerance: float
    measure: Measure
    relative: bool = False
    extra: bool = False
    quick: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a case gave.

    Args:
        case: the case.
        difference: the largest difference, or None where the case failed to run.
        error: why it failed to run.
    """

    case: Case
    difference: float | None
    error: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both sides agree."""
        return self.difference is not None and self.difference <= self.case.tolerance

    def row(self) -> tuple[str, ...]:
        """Return the table's entries."""
        case, found = self.case, self.error
        if self.difference is not None:
            found = f"{self.difference:.1e}" + (", relative" if case.relative else "")
        names = f"`{case.figure}`", case.reference, _version(case.package), case.on
        return *names, found if self.agrees else f"**{found}**", f"{case.tolerance:.0e}"


def load_cases(package: str = "agreement") -> list[Case]:
    """Return the `CASES` of every module of a package."""
    folder = importlib.import_module(package).__path__
    names = sorted(module.name for module in pkgutil.iter_modules(folder))
    modules = [importlib.import_module(f"{package}.{name}") for name in names]
    return [case for module in modules for case in getattr(module, "CASES", ())]


def run_case(case: Case) -> Outcome:
    """Run one case; whatever goes wrong is a failed case, not an end of the run."""
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            ours, theirs = (np.asarray(value, np.float64) for value in case.measure())
        return Outcome(case, _difference(ours, theirs, case.relative))
    except Exception as error:
        return Outcome(case, None, f"{type(error).__name__}: {error}".replace("\n", " ")[:200])


def report(outcomes: Sequence[Outcome]) -> str:
    """Return the page with the table."""
    lines = [HEADS, ("---",) * len(HEADS), *(outcome.row() for outcome in outcomes)]
    return BEGINNING + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def beyond(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return the outcomes that do not agree."""
    return [outcome for outcome in outcomes if not outcome.agrees]


def _difference(ours: np.ndarray, theirs: np.ndarray, relative: bool) -> float:
    if ours.shape != theirs.shape:
        raise ValueError(f"shapes differ: ours {ours.shape}, theirs {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("a value is not finite")
    largest = float(np.abs(ours - theirs).max())
    return largest / float(np.abs(theirs).max()) if relative else largest


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}" if package else "definition"
    except PackageNotFoundError:
        return f"{package}, not installed: make agreement"
