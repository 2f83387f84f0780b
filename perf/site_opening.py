"""How long a large site takes to open in Chromium: 1,000 cells, 200 galleries.

    .venv/bin/python perf/site_opening.py [--cells 1000] [--galleries 200]

Plants cells, builds the site, and opens the overview, a board with its plots, a gallery and a
comparison, each in a fresh page. Printed are seconds from the start of the navigation to the load
event, and to the first moment at which the main thread has been idle after it. Needs
`uv sync --group browser`, and Debian's chromium and chromium-driver.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from latentbench.command import count
from latentbench.records import list_records
from latentbench.reports.site.build import build
from latentbench.reports.site.contents import Contents
from latentbench.reports.site.meanings import Meanings

sys.path += [str(Path(__file__).resolve().parents[1] / "tests" / part) for part in ("", "browser")]

LOADED = "return performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
IDLE = (
    "const done = arguments[0];"
    "requestIdleCallback(() => requestAnimationFrame(() => done(performance.now() / 1000)))"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a large site.")
    parser.add_argument("--cells", type=count, default=1000)
    parser.add_argument("--galleries", type=count, default=200)
    asked = parser.parse_args()
    from chromium import Browser, started  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as name:
        results, site = Path(name, "results"), Path(name, "site")
        plant(results, asked.cells, asked.galleries)
        start = time.perf_counter()
        build(Contents.of(list_records(results), Meanings(), results), site)
        print(f"built in {time.perf_counter() - start:.1f} s", flush=True)
        with started(Path(name, "profile")) as driver:
            browser = Browser(driver, site)
            boards = sorted(p.name for p in (site / "boards").glob("*.html"))
            kinds = [next(b for b in boards if end in b) for end in ("-gallery.", "-compare.")]
            page = kinds[0].replace("-gallery.", ".")
            for address in ["index.html", *(f"boards/{b}" for b in (page, *kinds))]:
                browser.open(address)
                loaded = browser.until(f"({LOADED.removeprefix('return ')})")
                idle = driver.execute_async_script(IDLE)
                print(f"{address}: loaded after {loaded:.2f} s, idle after {idle:.2f} s")


def plant(results: Path, cells: int, galleries: int) -> None:
    """Write cells of edits, as many boards as galleries, the methods shared out evenly."""
    from planted_results import Planted  # pyright: ignore[reportMissingImports]

    planted = Planted(results)
    for k in range(cells):
        board, method = k % galleries, k // galleries
        names = {"model": f"model{board:03}"}
        planted.edits(f"method{method}", 0.1 + 0.8 * k / cells, names=names)


if __name__ == "__main__":
    main()
