"""`python -m agreement`: run every comparison and write docs/agreement.md.

Exit code: 0 when all figures agree with their references, 1 when one does not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from agreement import cases

PAGE = Path(__file__).resolve().parents[1] / "docs" / "agreement.md"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases, print each as it ends, and write the page."""
    parser = argparse.ArgumentParser("python -m agreement", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="where to write the page")
    arguments = parser.parse_args(argv)
    outcomes = []
    for case in cases.load_cases():
        outcomes.append(cases.run_case(case))
        print(" | ".join(outcomes[-1].row()), flush=True)
    arguments.out.write_text(cases.report(outcomes), encoding="utf-8")
    print(arguments.out)
    return int(bool(cases.beyond(outcomes)))


if __name__ == "__main__":
    sys.exit(main())
