"""What a reader does on the site, in Chromium: sort, filter, look, slide, enlarge, compare."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from planted_results import Planted

pytestmark = pytest.mark.browser

SHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"  # of `make browser`
LEFT, RIGHT, ESCAPE = "\ue012", "\ue014", "\ue00c"  # keys, as WebDriver calls them
QUALITIES = {"fair": 0.5, "good": 0.9, "poor": 0.1}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a site of three editing methods, two path methods and a skipped cell."""
    results, folder = (tmp_path_factory.mktemp(name) for name in ("results", "site"))
    planted = Planted(results)
    for method, quality in QUALITIES.items():
        planted.edits(method, quality)
    for method in ("good", "poor"):
        planted.paths(method, QUALITIES[method])
    planted.edits("fair", 0.55, seed=1)
    planted.skipped("odd", "odd has no edit <b>verb</b>")
    build(results, folder)
    return folder


def build(results: Path, folder: Path) -> None:
    """Write the site of a results folder."""
    from latentbench.records import list_records
    from latentbench.reports.site import build
    from latentbench.reports.site.contents import Contents
    from latentbench.reports.site.meanings import Meanings

    build.build(Contents.of(list_records(results), Meanings(), results), folder)


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


@pytest.fixture(scope="module")
def pages(site):
    """The pages of the board of edits: figures, gallery, comparison; and the gallery of paths."""
    found = {p.name for p in (site / "boards").glob("*.html")}
    named = {
        f"{board}{kind}": f"boards/{name}"
        for name in found
        for board in ("edits", "paths")
        for kind in ("-gallery", "-compare", "")
        if name.startswith(board) and name.endswith(f"{kind}.html")
        if kind or not name.endswith(("-gallery.html", "-compare.html"))
    }
    assert len(named) == len(found) == 6
    return named


def methods(browser):
    return browser.all("table.figures tbody tr:not([hidden]) th a")


def test_errors_and_requests_that_leave_the_folder_are_noticed(chromium):
    chromium.open("index.html")
    chromium.complaints()
    chromium.run("console.error('planted'); fetch('http://127.0.0.1:9/planted').catch(() => 0)")
    chromium.until("performance.getEntriesByName('http://127.0.0.1:9/planted').length")
    found = chromium.complaints()
    assert "http://127.0.0.1:9/planted" in found
    assert any("planted" in said for said in found if not said.startswith("http"))


def test_a_click_on_a_column_sorts_the_table(browser, pages):
    browser.open(pages["edits"])
    browser.until("document.querySelector('table.figures.dataTable, .dt-container')")
    column = "table.figures thead th:nth-child(1)"
    before = methods(browser)
    browser.click(column)
    browser.until("document.querySelector(arguments[0]).ariaSort === 'ascending'", column)
    assert methods(browser) == sorted(before) != before
    browser.click(column)
    browser.until("document.querySelector(arguments[0]).ariaSort === 'descending'", column)
    assert methods(browser) == sorted(before, reverse=True)


def test_words_filter_the_tables(browser):
    browser.open("index.html")
    assert len(methods(browser)) == 5
    browser.press("form.filters input[type=search]", "good")
    browser.until("document.querySelector('form.filters output').textContent")
    assert {name.split()[0] for name in methods(browser)} == {"good"}


def test_a_row_leads_to_its_cell(browser, pages):
    browser.open(pages["edits"])
    browser.click("table.figures tbody th a")
    browser.until("location.pathname.includes('/cells/')")
    assert "good" in browser.all("h1")[0]
    browser.click(".links a[href*=gallery]")
    browser.until("document.querySelector('table.gallery')")


def test_charts_are_drawn_and_a_point_leads_to_its_cell(browser, pages):
    browser.open(pages["edits"])
    browser.drawn()
    figures = browser.all(".charts h3")
    assert {"Effect against identity", "Leak against gain", "Quality against cost"} <= set(figures)
    assert min(browser.all(".chart svg", "childElementCount")) > 0
    browser.click(".chart svg .mark-symbol path[aria-label*='method:']")
    browser.until("location.pathname.includes('/cells/')")


def test_the_legend_hides_a_method(browser, pages):
    browser.open(pages["edits"])
    browser.drawn()
    points = "#target_gain_zoo1-leak_zoo1 svg path[aria-roledescription=point][aria-label*='poor']"
    assert browser.all(points, "tagName")
    browser.click(".legend [data-method=poor]")
    browser.until("!document.querySelector(arguments[0])", points)


def test_the_slider_moves_all_edits(browser, pages):
    browser.open(pages["edits-gallery"])
    says, shown = ".shot .says", ".shot img"
    best = browser.all(shown, "src")
    assert set(browser.all(says)) == {"strength 1.5", "strength 1.6"}
    browser.press("[name=strength]", RIGHT)
    assert set(browser.all(says)) == {"strength 1"}
    assert browser.all(shown, "src") != best
    browser.press("[name=strength]", LEFT)
    assert set(browser.all(says)) == {"reconstruction"}
    browser.click("[data-shows=matched]")
    assert set(browser.all(says)) == {"strength 2.5"}
    browser.click("[data-shows=best]")
    assert browser.all(shown, "src") == best
    browser.drawn()


def test_images_stand_from_worst_to_best(browser, pages):
    browser.open(pages["edits-gallery"])
    browser.choose("[name=figure]", "error_zoo1")
    browser.choose("[name=method]", "good")
    values = (
        "[...document.querySelectorAll('.line')].map(l => +l.querySelector('.value').innerText)"
    )
    worst = browser.run(f"return {values}")
    assert worst == sorted(worst, reverse=True) and len(set(worst)) > 1
    browser.click("[name=way]")
    assert browser.run(f"return {values}") == worst[::-1]
    browser.choose("[name=group]", "hat+")
    assert len([line for line in browser.all(".line", "hidden") if not line]) == 4


def test_an_image_is_enlarged_beside_its_answer(browser, pages):
    browser.open(pages["edits-gallery"])
    browser.click("td .shot button.zoom")
    browser.until("document.querySelector('dialog.zoomed').open")
    words = ".zoomed figcaption"
    assert browser.all(words) == ["source", "reconstruction", "strength 1.5", "asked for"]
    browser.press(".zoomed input", RIGHT)
    assert browser.all(words)[2] == "strength 2"
    browser.press(".zoomed input", ESCAPE)
    browser.until("!document.querySelector('dialog.zoomed').open")


def test_paths_show_all_their_frames(browser, pages):
    browser.open(pages["paths-gallery"])
    browser.drawn()
    assert len(browser.all(".line:first-child .strip", "tagName")) == 3
    assert set(browser.all(".strip .frames", "childElementCount")) == {7}


def test_two_methods_are_compared(browser, pages):
    browser.open(pages["edits-compare"])
    verdict = "document.querySelector('.verdict').textContent"
    assert "good is better" in browser.until(verdict)
    browser.choose("[name=a]", "poor")
    browser.until(f"{verdict}.includes('minus') && {verdict}.includes(': +')")
    browser.choose("[name=figure]", "leak_zoo1")
    browser.until(f"{verdict}.startsWith('leak_zoo1')")
    browser.until("document.querySelectorAll('#pairs svg path[aria-label]').length >= 12")
    browser.until("document.querySelectorAll('#gaps svg').length")
    assert len(browser.all("table.largest tbody tr", "tagName")) == 20
    assert "a=poor" in browser.run("return location.hash")


def test_a_long_table_shows_its_first_rows_and_all_when_asked(browser):
    browser.open("index.html")
    browser.until("document.querySelector('table.figures.dataTable')")
    browser.run(
        "const row = document.querySelector('table.figures tbody tr');"
        "for (let k = 0; k < 150; k++) row.parentElement.append(row.cloneNode(true));"
        "const button = document.createElement('button'); button.className = 'rows';"
        "row.closest('section').append(button)"
    )
    rows = "document.querySelector('table.figures').tBodies[0].rows"
    shown = f"[...{rows}].filter(row => row.offsetHeight).length"
    assert browser.run(f"return {shown}") == 100
    browser.click("button.rows")
    assert browser.run(f"return {shown}") > 150


def test_words_of_users_run_nothing(browser, tmp_path):
    evil = "<script>window.hit=1</script><img src=x onerror=window.hit=1>'\"&"
    planted = Planted(tmp_path / "results", split=evil, groups=("smile+", evil))
    planted.edits("good", 0.9)
    planted.edits(evil, 0.2)
    planted.paths("good", 0.9)
    planted.paths(evil, 0.2)
    folder = tmp_path / "site"
    build(tmp_path / "results", folder)
    browser = type(browser)(browser.driver, folder)  # whose test takes the complaints
    for page in sorted(folder.rglob("*.html")):
        browser.open(page.relative_to(folder).as_posix())
        for summary in range(len(browser.all("details > summary", "tagName"))):
            browser.run("document.querySelectorAll('details')[arguments[0]].open = true", summary)
        browser.drawn()
        if page.stem.endswith("-gallery"):
            browser.click("button.zoom")
            browser.until("document.querySelector('dialog.zoomed').open")
        if page.stem.endswith("-compare"):
            browser.until("document.querySelectorAll('table.largest tbody tr').length")
        if browser.all("table.samples", "tagName"):
            browser.until("document.querySelector('table.samples td')")
            assert evil in browser.run("return document.body.textContent")
        browser.run("for (const e of document.querySelectorAll('[data-tip]')) e.click?.()")
        assert browser.run("return window.hit ?? null") is None, page
        assert not browser.all("img[src=x]", "src"), page
    assert browser.complaints() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_pages_fit_their_window(browser, pages, width, theme):
    cell = next((browser.site / "cells").glob("*.html")).name
    others = {"overview": "index.html", "methods": "methods.html", "claims": "claims.html"}
    others |= {"method": "methods/good.html", "cell": f"cells/{cell}"}
    for name, page in (others | pages).items():
        browser.open(page, width, theme)
        browser.drawn()
        assert browser.run("return document.documentElement.dataset.theme") == theme
        browser.picture(SHOTS / f"{name}-{width}-{theme}.png", width)
        wide = browser.run("return document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} px wide"
