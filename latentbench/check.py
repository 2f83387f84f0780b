"""`latentbench check NAME`: run the conformance laws on a method, here or in a plug-in package."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.conformance.declarations import faults
from latentbench.conformance.laws import LAWS, LawBroken, results
from latentbench.conformance.trial import Trial, missing, trials
from latentbench.option import Option

Outcomes = Mapping[str, Mapping[str, Exception | None]]  # law -> trial -> what broke


def check(name: str, console: Console | None = None) -> int:
    """Print a table of laws, and return 0 when all hold, else 1.

    Args:
        name: an option of conf/method, or of a plug-in package's.
        console: where to print.

    Raises:
        BadInput: no such method.
    """
    console, method = console or Console(), option("method", name)
    said = list(faults(method))
    found = outcomes(method)
    console.print(_table(name, found))
    broken = [(law, where, e) for law, each in found.items() for where, e in each.items() if e]
    for words in said:
        console.print(f"declarations: {words}", markup=False, soft_wrap=True)
    for law, where, error in broken:
        kind = "" if isinstance(error, LawBroken) else f"{type(error).__name__}: "
        console.print(f"{law}, {where}: {kind}{error}", markup=False, soft_wrap=True)
    for verb, lacks in missing(method).items():
        console.print(f"{verb} was not tried: no toy model has {lacks}", markup=False)
    kept = sum(map(len, found.values())) - len(broken)
    console.print(f"{name}: {kept} checks passed, {len(broken) + len(said)} failed")
    return int(bool(broken or said))


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
