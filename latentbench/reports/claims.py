"""Claims: what papers say of two methods, answered from records by paired tests.

    python -m latentbench.reports.claims results/reference

reads `claims.yaml` beside the records, prints a table, and writes it as `claims.md`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from latentbench import store
from latentbench.command import answered, path
from latentbench.errors import BadInput
from latentbench.records import Status, list_records
from latentbench.reports.boards import Found, Row, paired
from latentbench.reports.comparison import LEVEL, Comparison, holm

FILE = "claims.yaml"
HEADS = ("claim", "where", "figure", "first", "second", "difference [95%]", "n", "p", "answer")


@dataclass(frozen=True)
class Claim:
    """One method is said to have a higher or lower figure than another, on the same images.

    Args:
        says: the claim in words.
        benchmark: as the leaderboard shows it, with overridden settings.
        model: the same.
        figure: column of the leaderboard.
        first: method, as the leaderboard shows it.
        second: the method that it is compared with.
        first_is: "higher" or "lower".
    """

    says: str
    benchmark: str
    model: str
    figure: str
    first: str
    second: str
    first_is: str

    def __post_init__(self) -> None:
        if self.first_is not in ("higher", "lower"):
            raise BadInput(f"first_is must be higher or lower, got {self.first_is!r}: {self.says}")

    def holds(self, comparison: Comparison) -> bool:
        """Return whether the difference has the claimed sign."""
        return comparison.difference > 0 if self.first_is == "higher" else comparison.difference < 0


def read(file: Path) -> list[Claim]:
    """Return the claims of a file; one with several models is one claim for each.

    Raises:
        BadInput: there is no such file, or it holds something other than claims.
    """
    if not file.is_file():
        raise BadInput(f"there is no {file}: claims are a list of entries of {_keys()}")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no yaml: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list):
        raise BadInput(f"{file} must hold a list of claims, entries of {_keys()}")
    return [claim for k, entry in enumerate(entries, 1) for claim in _claims(file, k, entry)]


def _claims(file: Path, number: int, entry: Any) -> list[Claim]:
    """Return the claims of one entry, one for each model."""
    wanted, given = set(_keys().split(", ")), set(entry) if isinstance(entry, dict) else set()
    models = entry["models"] if given == wanted else ()
    words = [*models, *(v for k, v in entry.items() if k != "models")] if models else [None]
    if not (isinstance(models, list) and all(isinstance(word, str) for word in words)):
        raise BadInput(
            f"claim {number} of {file} must have texts for {_keys()}, and a list of them for "
            f"models; got {entry!r:.200}"
        )
    rest = {name: text for name, text in entry.items() if name != "models"}
    return [Claim(**rest, model=model) for model in models]


def _keys() -> str:
    return ", ".join("models" if f.name == "model" else f.name for f in fields(Claim))


def compare(claim: Claim, found: Sequence[Found]) -> tuple[list[Row], Comparison | None]:
    """Return the two methods' rows, and how they differ on the images that both have."""
    rows = []
    for method in (claim.first, claim.second):
        wanted = (claim.benchmark, claim.model, method)
        cells = [
            (folder, record)
            for folder, record in found
            if record.status is Status.OK
            and tuple(record.label(g) for g in ("benchmark", "model", "method")) == wanted
        ]
        rows += [Row(cells)] if cells else []
    return rows, paired(rows, claim.figure).get((0, 1)) if len(rows) == 2 else None


def answer(claims: Sequence[Claim], found: Sequence[Found]) -> list[tuple[str, ...]]:
    """Return one line per claim: both figures, their paired difference, and what follows.

    "shows" and "the opposite shows" need p below .05 after Holm's correction for the number of
    claims; otherwise the records leave it undecided.
    """
    compared = [compare(claim, found) for claim in claims]
    known = {k: c.p for k, (_, c) in enumerate(compared) if c is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    return [_line(claim, *compared[k], corrected.get(k)) for k, claim in enumerate(claims)]


def _line(
    claim: Claim, rows: Sequence[Row], comparison: Comparison | None, p: float | None
) -> tuple[str, ...]:
    place = (claim.says, f"{claim.benchmark} · {claim.model}", claim.figure)
    if comparison is None or p is None:
        return (*place, claim.first, claim.second, "-", "0", "-", "no records")
    values = [row.scores[claim.figure].value for row in rows]
    who = (f"{m}: {v:.4g}" for m, v in zip((claim.first, claim.second), values, strict=True))
    gap = f"{comparison.difference:.3g}"
    if comparison.low is not None and comparison.high is not None:
        gap += f" [{comparison.low:.3g}, {comparison.high:.3g}]"
    verdict = "shows" if claim.holds(comparison) else "the opposite shows"
    return (*place, *who, gap, str(comparison.n), f"{p:.2g}", verdict if p < LEVEL else "undecided")


def markdown(lines: Sequence[tuple[str, ...]]) -> str:
    """Return the answers as a Markdown table."""
    table = [HEADS, ("---",) * len(HEADS), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in table) + "\n"


def write(results: Path) -> str:
    """Write the answers to the claims beside the records, and return their table."""
    claims, found = read(results / FILE), list_records(results)
    if not found:
        raise BadInput(f"no record below {results / 'cells'}; run the cells of the claims first")
    text = markdown(answer(claims, found))
    page = f"# Claims\n\nPaired by image; p after Holm.\n\n{text}"
    store.write(results / "claims.md", page.encode())
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        "python -m latentbench.reports.claims", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("results", type=path, help=f"folder of the records and of {FILE}")
    arguments = parser.parse_args(argv)

    def run() -> int:
        print(write(arguments.results))
        return 0

    return answered(run)


if __name__ == "__main__":
    sys.exit(main())
