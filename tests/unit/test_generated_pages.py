"""The pages that `make docs` generates, and the site that it builds of them."""

import io
import posixpath
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image
from planted_results import Planted

from docs.generate import parts
from docs.generate.links import LINK, OUTSIDE, in_site, unbroken, with_links
from docs.generate.strips import GAP, SIDE, strip
from latentbench.cells.catalogue import options
from latentbench.paths import CHECKOUT
from latentbench.records import list_records
from latentbench.reports.boards import boards
from latentbench.reports.claims import Case, Claim

ASKED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    planted = Planted(results)
    planted.edits("hspace_pca", 0.9)
    planted.edits("hspace_pca", 0.1, overrides=("benchmark.n=2",))
    planted.paths("slerp")
    return [
        parts.Line(board, k)
        for board in boards(list_records(results))
        for k in range(len(board.rows))
    ]


@pytest.fixture(scope="module")
def pages(lines):
    claim = Claim("a claim", "b", "m", "leak", "hspace_pca", "hspace", "lower")
    return parts.pages(lines, [Case(claim)])


@pytest.mark.parametrize("group", ["method", "benchmark", "metric", "model"])
def test_every_part_has_one_page(group, pages):
    own = {n for n, o in options(group).items() if o.package in parts.OWN}
    named = [name for page in pages[group] for name in page.names]
    assert own <= set(named)
    assert len({page.path for page in pages[group]}) == len(pages[group])


def test_a_method_s_page_holds_its_variants_figures_and_pictures(pages):
    page = next(page for page in pages["method"] if "hspace_pca" in page.names)
    assert page.path == "methods/hspace.md"
    row = next(line for line in page.text.splitlines() if "`method=hspace_pca`" in line)
    assert row.startswith('| `method=hspace_pca` | `variant: "pca"`')
    assert "Unsupervised components" in row
    cost = r"33\.33 \| 0\.12 \(2\) \|"  # 400 evaluations and 1.5 seconds for 12 samples
    assert re.search(rf"\| hspace_pca \| - \| `error_zoo1` 1\.\d+ \[.*\] \| {cost}", page.text)
    assert "::: methods.directions.hspace.HSpaceDirections" in page.text


def test_a_variant_that_follows_another_paper_says_so(pages):
    page = next(page for page in pages["method"] if "direct_inversion" in page.names)
    title, paper = page.text.split("\n\n")[:2]
    assert title == "# prompt_to_prompt" and "Prompt-to-Prompt" in paper
    row = next(x for x in page.text.splitlines() if x.startswith("| `method=direct_inversion`"))
    assert "PnP Inversion: Boosting Diffusion-based Editing" in row
    page = next(page for page in pages["method"] if "aid_inner" in page.names)
    assert "| name | differs by | what it is |\n" in page.text  # one paper for all


def test_a_method_s_page_names_the_families_of_models(pages):
    said = {p.names[0]: p.text.partition("that it works with: ")[2].split("\n")[0]
            for p in pages["method"]}  # fmt: skip
    assert all(said.values())
    assert "`PushForward` (" in said["pops"] and "`SemanticDiffusion` (" in said["pops"]
    assert "DiffusionModel" in said["sdedit"] and "PushForward" not in said["sdedit"]


def test_the_settings_keep_the_comment_at_the_head_of_the_yaml(pages):
    page = next(page for page in pages["method"] if page.names[0] == "domain_expansion")
    assert "```yaml\n# The paper: batch 32" in page.text
    for group in ("method", "benchmark", "metric", "model"):
        for page in pages[group]:
            file = CHECKOUT / "conf" / group / f"{page.names[0]}.yaml"
            assert file.read_text(encoding="utf-8").strip() in page.text


def test_each_picture_of_a_page_is_that_of_its_caption(pages, lines):
    """Two boards of one benchmark, with other settings, are two pictures."""
    page = next(page for page in pages["method"] if "hspace_pca" in page.names)
    shown = {x.board.benchmark: strip(x.row.folders[0]) for x in lines}
    assert list(page.pictures) == ["hspace-edits-1.webp", "hspace-edits-2.webp"]
    for file, benchmark in zip(page.pictures, ("edits", "edits n=2"), strict=True):
        picture = shown[benchmark]
        assert picture is not None and page.pictures[file] == picture[0]
        assert f"hspace_pca on toy, {benchmark} of faces. {picture[1]}]({file})" in page.text
    assert len(set(page.pictures.values())) == 2


def test_a_method_s_page_holds_the_claims_about_it(pages):
    with_claims = {page.names[0] for page in pages["method"] if "## Claims" in page.text}
    assert with_claims == {"hspace"}
    page = next(page for page in pages["method"] if page.names[0] == "hspace")
    assert "| a claim | no records | b · m | leak | hspace_pca | hspace | - |" in page.text


def test_a_method_s_page_says_what_the_class_says_that_it_refers_to(pages):
    page = next(page for page in pages["method"] if page.names[0] == "prompt_to_prompt")
    assert "## `CoupledEditor`\n\n::: methods.editing.coupled.CoupledEditor" in page.text
    page = next(p for p in pages["method"] if p.names[0] == "cycle_diffusion_selected")
    assert "## `CycleDiffusion`" in page.text  # which itself refers to
    assert "## `NoiseMapEditor`" in page.text


def test_cells_of_claims_are_shown_where_no_board_is(lines):
    claimed = [replace(line, claimed=True) for line in lines]
    assert parts._fewer([*claimed, *lines]) == lines
    assert parts._fewer(claimed) == claimed
    many = parts._fewer([*[claimed[0]] * (parts.MOST + 1), claimed[-1]])
    assert many == [*[claimed[0]] * parts.MOST, claimed[-1]]


def test_a_page_says_how_many_rows_it_leaves_out(lines):
    assert "3 more rows, made for claims" in "\n".join(parts._figures(lines, 3))
    assert "more rows" not in "\n".join(parts._figures(lines))


def test_every_link_of_a_page_leads_to_a_page_or_a_file_of_the_site(pages):
    sources = {place: CHECKOUT / source for source, place in OUTSIDE.items()}
    sources |= {
        path.relative_to(CHECKOUT / "docs").as_posix(): path
        for path in (CHECKOUT / "docs").rglob("*")
        if path.is_file()
    }
    made = {page.path for group in pages.values() for page in group}
    broken = [
        (here, link[1])
        for here, path in sources.items()
        if path.suffix == ".md"
        for link in LINK.finditer(in_site(path.read_text(encoding="utf-8"), here))
        if posixpath.normpath(posixpath.join(posixpath.dirname(here), link[1]))
        not in sources.keys() | made
    ]
    assert broken == []


def test_a_part_without_records_says_so(pages):
    page = next(page for page in pages["metric"] if "fid" in page.names)
    assert "No committed board has it." in page.text


def test_a_strip_shows_a_row_per_edit_with_the_answer_and_a_path_s_frames(lines):
    shown = {line.board.benchmark: strip(line.row.folders[0]) for line in lines}
    edits, frames = shown["edits"], shown["paths"]
    assert edits is not None and edits[1] == (
        "From left to right: source, reconstruction, output, answer. "
        "From top to bottom: smile+, hat+. Strength of each row's output: 1.5, 1.6."
    )
    renamed = strip(next(x.row.folders[0] for x in lines if x.board.benchmark == "edits"), "first")
    assert renamed == (edits[0], edits[1].replace("source", "first"))
    assert Image.open(io.BytesIO(edits[0])).width == 4 * SIDE + 3 * GAP
    assert frames is not None and "frame 1, frame 2" in frames[1]


def test_links_are_those_of_the_site():
    assert in_site("[a](../CONTRIBUTING.md#x)", "index.md") == "[a](contributing.md#x)"
    assert in_site("[a](docs/data.md)", "contributing.md") == "[a](data.md)"
    assert in_site("[a](../zoo.md)", "tutorials/author.md") == "[a](../zoo.md)"
    assert unbroken("| 0.5 [0.4, 0.6] |") == "| 0.5\u00a0[0.4,\u00a00.6] |"
    assert with_links("| `a` | `b` |", {"a": "x.md", "b": "y.md"}) == "| [`a`](x.md) | `b` |"


@pytest.mark.slow
def test_the_site_is_built_without_a_broken_link_and_asks_nothing_of_a_network(tmp_path):
    pytest.importorskip("mkdocs", reason="the group docs is not installed")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = list(tmp_path.rglob("*.html"))
    assert len(found) > 100
    for page in found:
        assert not ASKED.findall(page.read_text(encoding="utf-8")), page
    for sheet in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import", sheet.read_text(encoding="utf-8"))
