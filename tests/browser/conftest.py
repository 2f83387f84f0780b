"""A site of planted records, and Chromium, which reads it from files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_results import Planted

QUALITIES = {"fair": 0.5, "good": 0.9, "poor": 0.1}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a site of three editing methods, two path methods and a skipped cell."""
    from latentbench.records import list_records
    from latentbench.reports.site.build import build
    from latentbench.reports.site.contents import Contents
    from latentbench.reports.site.meanings import Meanings

    results, folder = (tmp_path_factory.mktemp(name) for name in ("results", "site"))
    planted = Planted(results)
    for method, quality in QUALITIES.items():
        planted.edits(method, quality)
    for method in ("good", "poor"):
        planted.paths(method, QUALITIES[method])
    planted.edits("fair", 0.55, seed=1)
    planted.skipped("odd", "odd has no edit <b>verb</b>")
    build(Contents.of(list_records(results), Meanings(), results), folder)
    return folder


@pytest.fixture(scope="session")
def chromium(site: Path, tmp_path_factory: pytest.TempPathFactory):
    """Chromium with a profile of its own. Where there is none, the tests fail."""
    from chromium import Browser, started

    with started(tmp_path_factory.mktemp("profile")) as driver:
        yield Browser(driver, site)


@pytest.fixture
def browser(chromium) -> Iterator:
    """Chromium; a test fails where the console complains or a request leaves the folder."""
    chromium.complaints()
    yield chromium
    assert chromium.complaints() == []
