"""`python -m agreement`: run every comparison and write docs/agreement.md.

Exit code: 0 when all figures agree with their references, 1 when one does not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from agreement import cases
from latentbench.command import answered, folder_to_write, path
from latentbench.errors import BadInput

PAGE = Path(__file__).resolve().parents[1] / "docs" / "agreement.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases, print each as it ends, and write the page."""
    parser = argparse.ArgumentParser("python -m agreement", description=__doc__)
    parser.add_argument("--out", type=path, default=PAGE, help="where to write the page")
    arguments = parser.parse_args(argv)
    return answered(lambda: run(arguments.out))


def run(page: Path) -> int:
    """Run the cases and write the page; return the exit code."""
    folder_to_write(page.parent, "the folder of --out")
    if page.is_dir():
        raise BadInput(f"--out must be a file, and {page} is a folder")
    outcomes = []
    for case in cases.load_cases():
        outcomes.append(cases.run_case(case))
        print(" | ".join(outcomes[-1].row()), flush=True)
    page.write_text(cases.report(outcomes), encoding="utf-8")
    print(page)
    return int(bool(cases.beyond(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
