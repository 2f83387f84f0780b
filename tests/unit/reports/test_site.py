import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from latentbench.errors import BadInput, LatentbenchError
from latentbench.records import Record, ScoreEntry, Status
from latentbench.reports.site.assets import as_script
from latentbench.reports.site.build import build, bundle
from latentbench.reports.site.contents import Contents, slug
from latentbench.reports.site.meanings import FigureWords, Meanings, MethodWords
from latentbench.reports.site.pieces import LIST, Piece, write

NOWHERE = Path("/nowhere")
EVIL = "<script>alert(1)</script>\"onmouseover='alert(2)'"


def record(method, value, model="m1", **changes):
    names = {"benchmark": "recon", "method": method, "model": model, "dataset": "faces"}
    score = {
        "psnr": ScoreEntry(value, 64, value - 1, value + 1, unit="dB", higher_is_better=True),
        "ssim": ScoreEntry(0.5, 64),
        f"psnr/{EVIL}": ScoreEntry(1.0, 32),
    }
    blank = Record(f"id-{method}-{model}", Status.OK, names, 0, {"method": {"prompt": EVIL}})
    return replace(blank, **({"main_score": "psnr", "scores": score} | changes))


RECORDS = [
    record("good", 20.0),
    record("best", 30.0),
    record("good", 40.0, "m2", overrides=(f"method.prompt={EVIL}",)),
    record(EVIL, 10.0, id=EVIL),
    record("odd", 0.0, status=Status.SKIPPED, scores={}, reason=f"no verb {EVIL}"),
    record("bad", 0.0, status=Status.FAILED, scores={}, reason=EVIL, traceback=EVIL),
]
WORDS = Meanings({"psnr": FigureWords(f"a ratio {EVIL}")}, {"good": MethodWords("Good", EVIL)})


def contents(records=RECORDS):
    return Contents.of([(NOWHERE, r) for r in records], WORDS, NOWHERE)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build(contents(), folder)
    return folder


class Reader(HTMLParser):
    """Collects the tags, the attributes and the addresses of a page."""

    def __init__(self):
        super().__init__()
        self.addresses, self.handlers, self.scripts, self.ids = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("href", "src") and v]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        self.ids |= {v for k, v in attrs if k == "id"}
        if tag == "script":
            self.scripts.append(dict(attrs))


def read(page):
    reader = Reader()
    reader.feed(page.read_text())
    return reader


def test_every_link_leads_to_a_file_of_the_site(site):
    pages = {page: read(page) for page in site.rglob("*.html")}
    assert len(pages) > len(RECORDS)
    for page, reader in pages.items():
        for address in reader.addresses:
            if address in ("data:,",):
                continue
            name, _, place = address.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.is_file() and target.is_relative_to(site), f"{page}: {address}"
            assert not place or target.suffix != ".html" or place in pages[target].ids, address


def test_words_of_users_run_nothing(site):
    for page in site.rglob("*.html"):
        text, reader = page.read_text(), read(page)
        assert not reader.handlers, page
        assert "<script>alert" not in text
        assert all("src" in s or s.get("type") == "application/json" for s in reader.scripts)


def test_the_same_records_give_the_same_bytes_and_nothing_is_made_twice(site, tmp_path):
    build(contents(), tmp_path / "again")
    files = sorted(p.relative_to(site) for p in site.rglob("*") if p.is_file())
    assert [
        site / f for f in files if (site / f).read_bytes() != (tmp_path / "again" / f).read_bytes()
    ] == []
    times = {p: p.stat().st_mtime_ns for p in site.rglob("*.html")}
    build(contents(), site)
    assert times == {p: p.stat().st_mtime_ns for p in site.rglob("*.html")}
    assert (
        bundle(site, tmp_path / "a.zip").read_bytes()
        == bundle(site, tmp_path / "b.zip").read_bytes()
    )


def test_a_changed_record_changes_its_pages_and_a_lost_one_takes_them_along(tmp_path):
    build(contents(), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.html")}
    build(contents([record("good", 21.0), *RECORDS[1:4]]), tmp_path)
    assert not (tmp_path / "cells" / "id-bad-m1.html").exists()
    changed = {p.name for p, text in before.items() if p.is_file() and p.read_bytes() != text}
    assert {"index.html", "id-good-m1.html"} <= changed and "id-good-m2.html" not in changed


def test_a_damaged_list_or_a_file_outside_the_folder(tmp_path):
    (tmp_path / LIST).write_text('{"x": {"key": "", "files": ["../lost"]}}')
    piece = Piece("a", None, lambda: {"a.txt": b"1"})
    assert write([piece], tmp_path) == ["a"] and write([piece], tmp_path) == []
    with pytest.raises(BadInput, match="below its folder"):
        write([Piece("b", None, lambda: {"../b": b""})], tmp_path)


def test_names_of_pages():
    assert slug("hspace") == "hspace"
    assert slug("../x") != slug("..-x") and re.fullmatch(r"[a-z0-9-]+", slug("../x"))
    assert slug("A") != slug("a") and len(slug("x" * 999)) < 80
    assert slug(EVIL).isascii() and "<" not in slug(EVIL)


def test_a_script_with_other_exports_is_refused():
    with pytest.raises(LatentbenchError, match="0 lists of exports"):
        as_script("var a=1;", "DataTable")
