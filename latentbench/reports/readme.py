"""The tables of figures in README.md and docs/leaderboard.md, written from leaderboard.csv.

    python -m latentbench.reports.readme results/reference

replaces what stands between `<!-- leaderboard -->` and `<!-- /leaderboard -->` in both pages; no
figure in them is edited by hand.
"""

import argparse
import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from latentbench import store
from latentbench.command import answered, path
from latentbench.errors import BadInput
from latentbench.paths import CHECKOUT
from latentbench.records import Status

Line = Mapping[str, str]  # of the CSV
BEGIN, END = "<!-- leaderboard -->", "<!-- /leaderboard -->"
README, PAGE = Path("README.md"), Path("docs/leaderboard.md")
FIGURES: Mapping[str, Sequence[str]] = {  # benchmark -> the columns of its table
    "reconstruction": ("psnr", "lpd_zoo1", "id_zoo1"),
    "attribute_editing": (
        "edit_error_zoo1", "edit_error_image", "inversion_error_image", "target_gain_zoo1",
        "leak_zoo1", "id_zoo1",
    ),
    "interpolation": ("path_error_image", "inner_projection_zoo1", "istd_cv", "end_lpd_zoo1"),
    "interpolation_prompt": ("path_error_image", "consistency_zoo1", "smooth_gini_zoo1"),
}  # fmt: skip
IN_README = {"attribute_editing": ("edit_error_zoo1", "target_gain_zoo1", "leak_zoo1", "id_zoo1")}


def read(file: Path) -> list[Line]:
    """Return the rows of a leaderboard's CSV.

    Raises:
        BadInput: there is no such file.
    """
    if not file.is_file():
        raise BadInput(f"{file} is missing; `latentbench leaderboard` writes it from the records")
    with file.open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))


def tables(lines: Iterable[Line], figures: Mapping[str, Sequence[str]]) -> str:
    """Return a Markdown table per benchmark, over all models.

    Args:
        lines: rows of the CSV, in its order: by benchmark and model, the best method first.
        figures: benchmark -> its columns.
    """
    lines = list(lines)
    settings = [set(line["model"].split()[1:]) for line in lines]
    shared = set.intersection(*settings) if settings else set()  # by all models: left out
    parts = []
    for benchmark, found in groupby(lines, lambda line: line["benchmark"]):
        rows = [row | {"model": _without(row["model"], shared)} for row in map(dict, found)]
        columns = figures.get(benchmark.split()[0])
        if columns is not None:
            parts += [f"**{benchmark}**", _table(rows, columns), *_gaps(rows)]
    return "\n\n".join(parts)


def replaced(text: str, tables: str, name: str) -> str:
    """Return a page with the tables between its markers.

    Raises:
        BadInput: the page does not have each marker once, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise BadInput(f"{name} must hold {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def write(results: Path, root: Path = CHECKOUT) -> list[Path]:
    """Write the tables of a folder of results into both pages, and return the pages.

    Raises:
        BadInput: no leaderboard there, or a page without its markers.
    """
    lines = read(results / "leaderboard.csv")
    pages = [root / README, root / PAGE]
    texts = [
        replaced(page.read_text(encoding="utf-8"), tables(lines, figures), page.name)
        for page, figures in zip(pages, (IN_README, FIGURES), strict=True)
    ]
    for page, text in zip(pages, texts, strict=True):
        store.write(page, text.encode())
    return pages


def _without(label: str, settings: set[str]) -> str:
    return " ".join(word for word in label.split() if word not in settings)


def _table(rows: Sequence[Line], figures: Sequence[str]) -> str:
    entries: dict[tuple[str, str, str], dict[str, Line]] = {}
    for row in rows:
        if row["status"] == Status.OK:
            entries.setdefault((row["model"], row["method"], row["seeds"]), {})[row["figure"]] = row
    on_model = Counter(model for model, _, _ in entries)
    lines = [["model", "method", "rank", *figures], ["---"] * (3 + len(figures))]
    for (model, method, seeds), found in entries.items():
        many = f" ({len(seeds.split())} seeds)" if len(seeds.split()) > 1 else ""
        main = next((row for row in found.values() if row["main"] == "True"), None)
        rank = _rank(main) if on_model[model] > 1 else "-"
        lines.append([model, method + many, rank, *(_figure(found.get(f)) for f in figures)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gaps(rows: Sequence[Line]) -> list[str]:
    """Return a line for each model that lacks methods which other models of the table have."""
    methods = dict.fromkeys(row["method"] for row in rows)
    found = []
    for model in dict.fromkeys(row["model"] for row in rows):
        there = {row["method"] for row in rows if row["model"] == model}
        if lacking := [method for method in methods if method not in there]:
            found.append(f"No record on {model} yet: {', '.join(lacking)}.")
    return found


def _rank(line: Line | None) -> str:
    if line is None or not line["rank_low"]:
        return "-"
    low, high = line["rank_low"], line["rank_high"]
    return f"{low if low == high else f'{low}–{high}'} {line['letters']}"


def _figure(line: Line | None) -> str:
    if line is None or not line["value"]:
        return "-"
    value, low, high = (_short(line[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if low and high else value


def _short(number: str) -> str:
    """Return a number with three digits, without the zeros that a float adds.

    Example:
        >>> _short("0.97861"), _short("100.0"), _short("")
        ('0.979', '100', '')
    """
    return re.sub(r"e([+-])0+", r"e\1", f"{float(number):.3g}") if number else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        "python -m latentbench.reports.readme", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("results", type=path, help="folder that holds leaderboard.csv")
    arguments = parser.parse_args(argv)

    def run() -> int:
        for page in write(arguments.results):
            print(page)
        return 0

    return answered(run)


if __name__ == "__main__":
    sys.exit(main())
