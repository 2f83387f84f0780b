"""The tables of README.md and docs/leaderboard.md are those of the committed leaderboard."""

import shutil

import pytest

from latentbench.errors import BadInput
from latentbench.paths import CHECKOUT
from latentbench.reports import readme

REFERENCE = CHECKOUT / "results" / "reference"


@pytest.fixture
def root(tmp_path):
    """A copy of both pages, with figures that are out of date."""
    for page in (readme.README, readme.PAGE):
        (tmp_path / page).parent.mkdir(exist_ok=True)
        text = (CHECKOUT / page).read_text(encoding="utf-8")
        (tmp_path / page).write_text(readme.replaced(text, "old", page.name))
    return tmp_path


def test_the_committed_pages_agree_with_the_committed_leaderboard(root):
    for page in readme.write(REFERENCE, root):
        committed = CHECKOUT / page.relative_to(root)
        assert page.read_text() == committed.read_text(encoding="utf-8"), (
            f"{committed}: run python -m latentbench.reports.readme results/reference"
        )


def test_the_readme_is_short():
    assert len((CHECKOUT / readme.README).read_text(encoding="utf-8").splitlines()) < 120


def line(method, model="m steps=20", figure="edit_error_zoo1", **changed):
    given = {
        "benchmark": "attribute_editing n=4", "model": model, "method": method, "seeds": "0",
        "status": "ok", "figure": figure, "value": "0.5", "low": "0.4001", "high": "0.61",
        "main": str(figure == "edit_error_zoo1"), "rank_low": "1", "rank_high": "2",
        "letters": "a",
    }  # fmt: skip
    return given | changed


COLUMNS = {"attribute_editing": ("edit_error_zoo1", "id_zoo1")}


def test_a_table_holds_ranks_intervals_and_what_is_missing():
    lines = [
        line("hspace"), line("hspace", figure="id_zoo1", value="1e-12", low="", high=""),
        line("sdedit", seeds="0 1", rank_low="2"),
        line("hspace", model="k steps=20 guidance=1"),
        line("sdedit", model="k steps=20 guidance=1", status="skipped", value=""),
        line("slerp", benchmark="interpolation"),
    ]  # fmt: skip
    assert readme.tables(lines, COLUMNS).splitlines() == [
        "**attribute_editing n=4**",
        "",
        "| model | method | rank | edit_error_zoo1 | id_zoo1 |",
        "| --- | --- | --- | --- | --- |",
        "| m | hspace | 1–2 a | 0.5 [0.4, 0.61] | 1e-12 |",
        "| m | sdedit (2 seeds) | 2 a | 0.5 [0.4, 0.61] | - |",
        "| k guidance=1 | hspace | - | 0.5 [0.4, 0.61] | - |",
    ]
    assert "No record on k guidance=1 yet: sdedit." in readme.tables(lines[:4], COLUMNS)


def test_pages_without_markers_and_folders_without_a_leaderboard_are_refused(root, capsys):
    shutil.copy(root / readme.PAGE, root / "kept.md")
    (root / readme.README).write_text("no marker")
    with pytest.raises(BadInput, match=r"README\.md must hold <!-- leaderboard -->"):
        readme.write(REFERENCE, root)
    assert (root / readme.PAGE).read_text() == (root / "kept.md").read_text()
    assert readme.main([str(root)]) == 2
    assert "leaderboard.csv is missing" in capsys.readouterr().err
