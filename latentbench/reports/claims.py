"""Claims: what papers say of two methods, answered from records by paired tests.

    python -m latentbench.reports.claims results/reference

reads `claims.yaml` next to the records, prints the answers, and writes them as `claims.md`.

    python -m latentbench.reports.claims results/reference --commands

prints the commands that make the records which the claims ask for.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from latentbench import store
from latentbench.command import answered, path
from latentbench.errors import BadInput
from latentbench.intervals import FEWEST, LEVEL
from latentbench.records import EFFECT, Status, list_records
from latentbench.reports.as_text import in_markdown
from latentbench.reports.boards import (
    SHARE,
    Found,
    Row,
    by_all_but_seed,
    clash,
    made_with,
    paired,
    paired_sets,
)
from latentbench.reports.comparison import POWER, Comparison, holm

FILE = "claims.yaml"
HEADS = (
    "claim", "where", "figure", "first", "second", "difference [95%]", "images", "fits", "p",
    "answer",
)  # fmt: skip
EVIDENCE_HEADS = ("claim", "where", "cells of the first", "cells of the second")
FEWEST_FITS = 3  # of a claim about what is fitted: with two, one degree of freedom is left
POOLED = ""  # the group of all rows together
GAIN = "target_gain_"  # begins figures that strengths of matched effect make equal

Unit = Literal["image", "fit"]
Sign = Literal["higher", "lower", "same"]
SAYS = (
    "Paired by image, on the rows that both methods have; several edits of an image are one unit, "
    "and so are all images of one seed, each of which fits anew. `shows` and `the opposite shows` "
    "need p below .05 after Holm's correction for the number of claims, an interval that leaves "
    "out 0, and a difference that matters; that two are the same needs an interval within the "
    "smallest difference that matters. A line per group, such as an attribute, follows its "
    "claim, corrected within the claim. A claim whose unit is the fit holds for other fits: it "
    f"needs {FEWEST_FITS} seeds."
)


@dataclass(frozen=True)
class Claim:
    """A method is said to have a higher or lower figure than another, or the same.

    Both are compared on the same images.

    Args:
        says: the claim in words.
        benchmark: as the leaderboard shows it, with overridden settings in any order.
        model: the same.
        figure: column of the leaderboard.
        first: method, as the leaderboard shows it.
        second: the method that it is compared with.
        first_is: "higher", "lower", or "same": no difference that matters.
        unit: "image", or "fit" where the claim is about what is fitted, such as directions: one
            fit is one sample, however many images it is tried on.
        fits: number of seeds that `commands` runs where the unit is the fit: few fits show only
            differences that are large beside the spread over fits.
        dataset: option of the data that the cells are made on, where the benchmark needs its own;
            the answers are of all data that there are records of.
    """

    says: str
    benchmark: str
    model: str
    figure: str
    first: str
    second: str
    first_is: Sign
    unit: Unit = "image"
    fits: int = FEWEST_FITS
    dataset: str = ""

    def __post_init__(self) -> None:
        for name, allowed in (("first_is", get_args(Sign)), ("unit", get_args(Unit))):
            if (given := getattr(self, name)) not in allowed:
                raise BadInput(f"{name} must be {' or '.join(allowed)}, got {given!r}: {self.says}")
        if self.fits < FEWEST_FITS:
            raise BadInput(f"fits must be {FEWEST_FITS} or more, got {self.fits}: {self.says}")
        for part in ("benchmark", "model", "first", "second", "dataset"):
            name, *settings = getattr(self, part).split() or [""]
            ordered = sorted(settings, key=lambda word: word.partition("="))
            object.__setattr__(self, part, " ".join([name, *ordered]))
        if self.first == self.second:
            raise BadInput(f"{self.first} is compared with itself: {self.says}")

    def holds(self, comparison: Comparison) -> bool:
        """Return whether a difference that matters is the claimed one."""
        return self.first_is == ("higher" if comparison.difference > 0 else "lower")


@dataclass(frozen=True)
class Case:
    """A claim on one data set, of all rows or of one group of them.

    Args:
        claim: what is said.
        dataset: as the leaderboard shows it; empty where no records are found.
        rows: the two methods, or fewer where one has no records.
        comparison: how they differ, or None.
        cells: which of several rows of one label they are; empty where there is one of each.
        group: the group, such as an attribute; `POOLED` for all.
        p: corrected p-value, or None.
        level: of the hardest step of that correction, at which power is stated.
    """

    claim: Claim
    dataset: str = ""
    rows: tuple[Row, ...] = ()
    comparison: Comparison | None = None
    cells: str = ""
    group: str = POOLED
    p: float | None = None
    level: float = LEVEL

    @property
    def fits(self) -> int:
        """Number of seeds that both methods have."""
        both = [set(row.seeds) for row in self.rows]
        return len(both[0] & both[1]) if len(both) == 2 else 0

    @property
    def smallest(self) -> float:
        """The smallest difference that matters: what the figure states, or 1% of its size."""
        entries = [row.scores[self.claim.figure] for row in self.rows]
        if entries[0].smallest is not None:
            return entries[0].smallest
        return SHARE * float(np.median([abs(e.value) for e in entries if e.value is not None]))

    def answer(self) -> str:
        """Return what follows, and of what is undecided what could have been found."""
        found = self.comparison
        if found is None or self.p is None:
            return self._missing()
        if self.claim.unit == "fit" and self.fits < FEWEST_FITS:
            return f"undecided: {self.fits} of the {FEWEST_FITS} fits that it takes"
        apart = self.p < LEVEL and found.leaves_out_zero
        if apart and abs(found.difference) >= self.smallest:
            return "shows" if self.claim.holds(found) else "the opposite shows"
        if self._within(found):
            shows = "shows: " if self.claim.first_is == "same" else ""
            return f"{shows}no difference that matters: less than {self.smallest:.2g}"
        if found.error == 0:
            return f"undecided: the two differ on none of {found.n} images, or on all alike"
        return (
            f"undecided: {found.detectable(self.level):.2g} would be found with {POWER:.0%} power, "
            f"{self.smallest:.2g}, the smallest that matters, with "
            f"{found.power(self.smallest, self.level):.0%}"
        )

    def _missing(self) -> str:
        """Return why the two are not compared."""
        claim, there = self.claim, [row.first.label("method") for row in self.rows]
        if lacking := [name for name in (claim.first, claim.second) if name not in there]:
            return "no records" + (f" of {lacking[0]}" if there else "")
        for name, row in zip(there, self.rows, strict=True):
            if claim.figure not in row.scores:
                return f"not compared: {name} has no figure {claim.figure}"
            if _equalised(claim.figure, row):
                return (
                    f"not compared: strengths are matched on {claim.figure}, so {name} has what "
                    f"all have; ask edit_error, or a benchmark that matches no effect"
                )
            if row.scores[claim.figure].value is None:
                return f"not compared: no value for {name}: {row.scores[claim.figure].note}"
        if odd := _odd(self.rows):
            return f"not compared: made with different {', '.join(odd)}; run the older cells again"
        return "not compared: no image of one seed counts for both"

    def _within(self, found: Comparison) -> bool:
        if found.low is None or found.high is None:
            alike = found.difference == found.error == 0 and found.n >= FEWEST
            return alike and not any(_is_rate(row, self.claim.figure) for row in self.rows)
        return -self.smallest < found.low and found.high < self.smallest

    def line(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        claim, found = self.claim, self.comparison
        says = claim.says if self.group == POOLED else f"- {self.group}"
        where = " · ".join(filter(None, (claim.benchmark, claim.model, self.dataset, self.cells)))
        if found is None or self.p is None:
            missing = ("-", "0", str(self.fits), "-")
            return (says, where, claim.figure, claim.first, claim.second, *missing, self.answer())
        values = found.values or tuple(r.scores[claim.figure].value for r in self.rows)
        who = (f"{m}: {v:.4g}" for m, v in zip((claim.first, claim.second), values, strict=True))
        gap = f"{found.difference:.3g}"
        if found.low is not None and found.high is not None:
            gap += f" [{found.low:.3g}, {found.high:.3g}]"
        counts = (str(found.n), str(self.fits))
        return (says, where, claim.figure, *who, gap, *counts, f"{self.p:.2g}", self.answer())


def read(file: Path) -> list[Claim]:
    """Return the claims of a file; one with several models is one claim for each.

    Raises:
        BadInput: there is no such file, or it holds something other than claims.
    """
    if not file.is_file():
        raise BadInput(f"there is no {file}: claims are a list of entries of {_keys()}")
    try:
        entries = yaml.load(file.read_text(encoding="utf-8"), _Unique)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no yaml: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{file} must hold a list of claims, entries of {_keys()}")
    asked, found = [], {}
    for k, entry in enumerate(entries, 1):
        for claim in _claims(file, k, entry):
            if (same := replace(claim, says="", fits=FEWEST_FITS)) in found:
                raise BadInput(
                    f"claim {k} of {file} is claim {found[same]} once more, on {claim.model}; it "
                    f"would be corrected for twice; leave one of them out"
                )
            found[same] = k
            asked.append(claim)
    return asked


class _Unique(yaml.SafeLoader):
    """Refuses an entry that says one thing twice, of which YAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the entry."""
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"it says {name!r} twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _claims(file: Path, number: int, entry: Any) -> list[Claim]:
    """Return the claims of one entry, one for each model."""
    wanted, given = set(_keys().split(", ")), set(entry) if isinstance(entry, dict) else set()
    models = entry["models"] if given | {"unit", "fits", "dataset"} == wanted else ()
    texts = [v for k, v in entry.items() if k not in ("models", "fits")] if models else [None]
    sound = isinstance(models, list) and type(entry.get("fits", FEWEST_FITS)) is int
    if not (sound and all(isinstance(word, str) for word in (*models, *texts))):
        raise BadInput(
            f"claim {number} of {file} must have texts for {_keys()}, but a list of them for "
            f"models and a whole number for fits; got {entry!r:.200}"
        )
    rest = {name: text for name, text in entry.items() if name != "models"}
    return [Claim(**rest, model=model) for model in models]


def _keys() -> str:
    return ", ".join("models" if f.name == "model" else f.name for f in fields(Claim))


def cases(claim: Claim, found: Sequence[Found]) -> list[Case]:
    """Return the claim on every data set that has records of it, pooled and by group."""
    here = [
        (folder, record)
        for folder, record in found
        if record.status is Status.OK
        and (record.label("benchmark"), record.label("model")) == (claim.benchmark, claim.model)
    ]
    made = []
    for dataset in sorted({record.label("dataset") for _, record in here}):
        rows = [
            [
                Row(same)
                for same in by_all_but_seed(
                    [
                        (folder, record)
                        for folder, record in here
                        if (record.label("method"), record.label("dataset")) == (method, dataset)
                    ]
                )
            ]
            for method in (claim.first, claim.second)
        ]
        for pair in product(*(found for found in rows if found)):
            several = any(len(found) > 1 for found in rows)
            cells = " and ".join(row.first.id for row in pair) if several else ""
            made.append(Case(claim, dataset, pair, cells=cells))
    complete = [case for case in made if len(case.rows) == 2]
    if not complete:
        return made[:1] or [Case(claim)]
    return [part for case in complete for part in _parts(case)]


def _parts(case: Case) -> list[Case]:
    """Return the case of all rows, then those of each group, where there are several.

    A figure of a whole set has no groups.
    """
    named = sorted(case.rows[0].groups & case.rows[1].groups)
    pooled = replace(case, comparison=_compare(case, POOLED))
    groups = [replace(case, comparison=_compare(case, name), group=name) for name in named]
    apart = len(groups) > 1 and any(part.comparison for part in groups)
    return [pooled, *groups] if apart else [pooled]


def _compare(case: Case, group: str) -> Comparison | None:
    rows, figure = case.rows, case.claim.figure
    entries = [row.scores.get(figure) for row in rows]
    if _odd(rows) or any(e is None or e.value is None for e in entries):
        return None
    if any(_equalised(figure, row) for row in rows):
        return None
    found = paired(rows, figure, group or None)
    if not found and group == POOLED:
        found = paired_sets(rows, figure)
    return found.get((0, 1))


def _odd(rows: Sequence[Row]) -> list[str]:
    """Return what the two rows were made with in different versions.

    Two settings of one method must be of one version of it as well.
    """
    made, methods = map(made_with, rows), [row.first.config.get("method") for row in rows]
    targets = [m.get("_target_") if isinstance(m, Mapping) else None for m in methods]
    versions = [row.first.versions.get(str(targets[0])) for row in rows]
    same = targets[0] is not None and targets[0] == targets[1]
    return clash(*made) + ([str(targets[0])] if same and versions[0] != versions[1] else [])


def _is_rate(row: Row, figure: str) -> bool:
    """Return whether each sample says yes or no: equal answers bound no rate."""
    values = row.values(figure)
    return values is not None and bool(values.isin((0, 1)).all())


def _equalised(figure: str, row: Row) -> bool:
    """Return whether strengths were chosen so that all methods have one value of this figure."""
    return figure.startswith(GAIN) and row.scores[figure].at == EFFECT


def answer(claims: Sequence[Claim], found: Sequence[Found]) -> list[Case]:
    """Return the claims on each data set, pooled and by group, with corrected p-values.

    P-values of pooled cases are corrected together, those of the groups of a claim by themselves.
    """
    listed = [(k, case) for k, claim in enumerate(claims) for case in cases(claim, found)]
    families = [0 if case.group == POOLED else 1 + k for k, case in listed]
    corrected: dict[int, tuple[float, float]] = {}
    for family in dict.fromkeys(families):
        known = {
            place: case.comparison.p
            for place, (_, case) in enumerate(listed)
            if families[place] == family and case.comparison is not None
        }
        levels = [LEVEL / len(known)] * len(known) if known else []
        corrected |= dict(
            zip(known, zip(holm(list(known.values())), levels, strict=True), strict=True)
        )
    return [
        replace(case, p=corrected[k][0], level=corrected[k][1]) if k in corrected else case
        for k, (_, case) in enumerate(listed)
    ]


def markdown(answers: Sequence[Case]) -> str:
    """Return the answers, and the cells that they rest on, as Markdown tables."""
    lines = [case.line() for case in answers]
    pooled = [case for case in answers if case.group == POOLED and len(case.rows) == 2]
    evidence = [
        (
            case.claim.says,
            case.line()[1],
            *(", ".join(r.id for r in row.records) for row in case.rows),
        )
        for case in pooled
    ]
    return f"{SAYS}\n\n{_table(HEADS, lines)}\n## Evidence\n\n{_table(EVIDENCE_HEADS, evidence)}"


def _table(heads: Sequence[str], lines: Sequence[tuple[str, ...]]) -> str:
    table = [tuple(heads), ("---",) * len(heads), *lines]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in table) + "\n"


def _cell(text: str) -> str:
    return in_markdown(text).replace("|", "\\|")


def commands(claims: Sequence[Claim], results: Path) -> list[str]:
    """Return the commands that run the claims' cells; methods of equal settings share one.

    What is claimed of fits is run with as many seeds as its claims ask for.

    Example:
        >>> claim = Claim("", "reconstruction n=8", "faces_ldm", "psnr", "a", "b", "higher")
        >>> commands([claim], Path("x"))[0].partition("-m ")[2]
        'benchmark=reconstruction benchmark.n=8 model=faces_ldm method=a,b results.dir=x'
    """
    seeds: dict[tuple[str, ...], int] = {}
    for claim in claims:
        for method in (claim.first, claim.second):
            name, _, settings = method.partition(" ")
            cell = (claim.benchmark, claim.dataset, claim.model, settings, name)
            seeds[cell] = max(seeds.get(cell, 1), claim.fits if claim.unit == "fit" else 1)
    asked: dict[tuple[tuple[str, ...], int], list[str]] = {}
    for (*where, name), number in seeds.items():
        asked.setdefault((tuple(where), number), []).append(name)
    lines = []
    for ((benchmark, dataset, model, settings), number), names in asked.items():
        method = f"{','.join(names)} {settings}"
        parts = {"benchmark": benchmark, "dataset": dataset, "model": model, "method": method}
        parts = {group: label for group, label in parts.items() if label}
        words = [word for group, label in parts.items() for word in _words(group, label)]
        words += [f"seed={','.join(map(str, range(number)))}"] if number > 1 else []
        lines.append(shlex.join(["python", "runner.py", "-m", *words, f"results.dir={results}"]))
    return lines


def _words(group: str, label: str) -> list[str]:
    """Return the words of a command that give a part as the leaderboard shows it.

    Settings of several methods at once are given with ``++``: Hydra looks for those without it in
    the usual method as well.
    """
    name, *settings = label.split()
    more = "++" if "," in name else ""
    return [f"{group}={name}", *(f"{more}{group}.{setting}" for setting in settings)]


def write(results: Path) -> str:
    """Write the answers to the claims next to the records, and return them as Markdown."""
    claims, found = read(results / FILE), list_records(results)
    if not found:
        raise BadInput(f"no record below {results / 'cells'}; run the cells of the claims first")
    text = markdown(answer(claims, found))
    store.write(results / "claims.md", f"# Claims\n\n{text}".encode())
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        "python -m latentbench.reports.claims", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("results", type=path, help=f"folder of the records and of {FILE}")
    parser.add_argument(
        "--commands", action="store_true", help="print the commands that make the records, and stop"
    )
    arguments = parser.parse_args(argv)

    def run() -> int:
        if arguments.commands:
            claims = read(arguments.results / FILE)
            print("\n".join(commands(claims, arguments.results)))
            return 0
        print(write(arguments.results))
        return 0

    return answered(run)


if __name__ == "__main__":
    sys.exit(main())
