"""`latentbench check NAME`: run the conformance laws on a method, here or in a plug-in package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.conformance.declarations import faults
from latentbench.conformance.laws import LAWS, LawBroken, results
from latentbench.conformance.trial import Trial, missing, trials
from latentbench.option import Option

Outcomes = Mapping[str, Mapping[str, Exception | None]]  # law -> trial -> what broke


@dataclass(frozen=True)
class Checked:
    """What the laws said of a method.

    Args:
        name: the method.
        declarations: what is wrong with what its class declares.
        outcomes: what broke in each trial of each law, None where it held.
        untried: verb -> what no toy model has.
    """

    name: str
    declarations: tuple[str, ...]
    outcomes: Outcomes
    untried: Mapping[str, str]

    @property
    def broken(self) -> list[tuple[str, str, str]]:
        """Law, trial and error in words, where a law does not hold."""
        return [
            (law, where, str(e) if isinstance(e, LawBroken) else f"{type(e).__name__}: {e}")
            for law, each in self.outcomes.items()
            for where, e in each.items()
            if e
        ]

    @property
    def kept(self) -> int:
        """The number of checks that passed."""
        return sum(map(len, self.outcomes.values())) - len(self.broken)

    @property
    def code(self) -> int:
        """The exit code: 0 when all laws hold, else 1."""
        return int(bool(self.broken or self.declarations))

    def document(self) -> dict[str, Any]:
        """Return it as JSON values."""
        broken = [{"law": law, "on": where, "error": error} for law, where, error in self.broken]
        return {
            "method": self.name,
            "laws": {law: len(each) for law, each in self.outcomes.items()},
            "declarations": list(self.declarations),
            "broken": broken,
            "passed": self.kept,
            "not_tried": dict(self.untried),
        }

    def show(self, console: Console | None = None) -> None:
        """Print a table of laws, and a line for each that does not hold."""
        console = console or Console()
        console.print(_table(self.name, self.outcomes))
        for words in self.declarations:
            console.print(f"declarations: {words}", markup=False, soft_wrap=True)
        for law, where, error in self.broken:
            console.print(f"{law}, {where}: {error}", markup=False, soft_wrap=True)
        for verb, lacks in self.untried.items():
            console.print(f"{verb} was not tried: no toy model has {lacks}", markup=False)
        failed = len(self.broken) + len(self.declarations)
        console.print(f"{self.name}: {self.kept} checks passed, {failed} failed")


def check(name: str) -> Checked:
    """Try all laws on a method.

    Args:
        name: an option of conf/method, or of a plug-in package's.

    Raises:
        BadInput: no such method.
    """
    method = option("method", name)
    return Checked(name, tuple(faults(method)), outcomes(method), missing(method))


def outcomes(method: Option) -> Outcomes:
    """Return what each law said of each trial."""
    found: dict[str, dict[str, Exception | None]] = {law: {} for law in LAWS}
    with TemporaryDirectory() as folder:
        for law, trial, error in results(_trials(method, Path(folder))):
            found[law][str(trial)] = error
    return {law: each for law, each in found.items() if each}


def _trials(method: Option, folder: Path) -> list[Trial]:
    return trials(method, Cache(folder))


def _table(name: str, found: Outcomes) -> Table:
    table = Table("law", "what it says", "checks", "failed on", title=f"laws of {name}")
    for law, each in found.items():
        failed = [where for where, error in each.items() if error]
        table.add_row(law, LAWS[law].words, str(len(each)), ", ".join(failed) or "-")
    return table
