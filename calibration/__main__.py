"""`python -m calibration`: simulate every interval and test; write the tables into the docs.

The tables are in docs/statistics.md, between two marks; all else on the page stays. Some ten
minutes on one core; `--trials` times less or more. `--only` makes some of the tables anew: the
draws are seeded, so those whose code is the same would be the same.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from calibration import differences, means, sets
from calibration.table import Table
from latentbench import store
from latentbench.command import answered, count, path
from latentbench.errors import BadInput

PAGE = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"
BEGIN, END = "<!-- made by `make calibration` -->", "<!-- end of what `make calibration` makes -->"
TRIALS = 2000

TABLES: tuple[tuple[str, Callable[[int], Table], float], ...] = (
    ("Means", means.of_means, 1.0),
    ("Rates", means.of_rates, 1.0),
    ("Rows that come in clusters", means.of_clusters, 0.5),
    ("Means over seeds and 16 images", means.of_seeds, 0.5),
    ("Figures of sets", sets.of_sets, 0.1),
    ("Figures of one set", sets.of_one_set, 0.1),
    ("A/A: two sets of one law", sets.of_pairs_of_sets, 0.1),
    ("A/A: two methods", differences.of_differences, 1.0),
    ("A/A: boards", differences.of_boards, 0.1),
)
"""Title, simulation, and what share of the trials it takes."""


def written(page: str, text: str) -> str:
    """Return the page with this text between its marks.

    Example:
        >>> written(f"a {BEGIN} b {END} c", "d").split()[-1]
        'c'
    """
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}"


def tables(page: str) -> dict[str, str]:
    r"""Return the page's tables between its marks, by title.

    Example:
        >>> tables(f"{BEGIN}\n\n### Means\n\n| n |\n\n{END}")
        {'Means': '| n |\n'}
    """
    parts = page.partition(BEGIN)[2].partition(END)[0].split("### ")[1:]
    found = (part.partition("\n") for part in parts)
    return {title: text.strip() + "\n" for title, _, text in found}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser("python -m calibration", description=__doc__)
    parser.add_argument("--trials", type=count, default=TRIALS, help="simulated samples of a cell")
    parser.add_argument("--page", type=path, default=PAGE, help="where to write the tables")
    titles = [title for title, *_ in TABLES]
    parser.add_argument("--only", nargs="+", choices=titles, default=titles, help="which tables")
    arguments = parser.parse_args(argv)
    return answered(lambda: run(arguments.page, arguments.trials, arguments.only))


def run(page: Path, trials: int, only: Sequence[str]) -> int:
    """Run the simulations, print each table as it ends, and write the page."""
    if not page.is_file() or BEGIN not in page.read_text(encoding="utf-8"):
        raise BadInput(f"--page must be a file with the line {BEGIN}, got {page}")
    made = {}
    for title, simulate, part in TABLES:
        if title in only:
            start, samples = time.perf_counter(), max(1, int(part * trials))
            text = f"{samples} samples a cell.\n\n{simulate(samples).markdown()}"
            print(f"### {title}\n\n{text}", f"({time.perf_counter() - start:.0f} s)", flush=True)
            made[title] = text
    before = page.read_text(encoding="utf-8")
    found = tables(before) | made
    parts = [f"### {title}\n\n{found[title]}" for title, *_ in TABLES if title in found]
    store.write(page, written(before, "\n".join(parts)).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
