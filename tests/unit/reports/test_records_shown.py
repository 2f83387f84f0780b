"""`latentbench show`, `compare` and `export`, on records that were made up."""

import csv
import io
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from planted_results import Planted

from latentbench import cli, records
from latentbench.reports.boards import Row, paired


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    planted = Planted(results)
    cells = {
        "good": planted.edits("good", 0.9),
        "good again": planted.edits("good", 0.9, seed=1),
        "bad": planted.edits("bad", 0.1),
        "path": planted.paths("slerp"),
    }
    return results, cells


def told(capsys, *words):
    capsys.readouterr()
    assert cli.main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def answer(capsys, *words):
    """Return what a command that is refused says."""
    capsys.readouterr()
    assert cli.main([*map(str, words)]) == 2
    return capsys.readouterr().err


# ---------------------------------------------------------------- show


def test_a_cell_is_shown_by_the_beginning_of_its_id(planted, capsys, monkeypatch):
    results, cells = planted
    monkeypatch.setenv("COLUMNS", "200")
    record = cells["bad"]
    assert cli.main(["show", record.id[:10], "--results", str(results)]) == 0
    said = capsys.readouterr().out
    entry = record.scores["error_zoo1"]
    for words in (record.title, record.id, f"[{entry.low:.4g}, {entry.high:.4g}]",
                  "python runner.py benchmark=edits method=bad"):  # fmt: skip
        assert words in said
    assert (
        told(capsys, "show", record.id, "--results", results)["scores"].keys()
        == record.scores.keys()
    )


def test_a_name_of_several_cells_is_answered_with_their_ids(planted, capsys):
    results, cells = planted
    said = answer(capsys, "show", "edits", "--results", results)
    assert "names 3 cells" in said and cells["bad"].id in said


def test_the_words_of_a_record_make_it_again():
    record = records.Record(
        "x", records.Status.OK, {"benchmark": "b", "method": "m", "model": "n", "dataset": "d"}, 2,
        {}, overrides=("method.steps=5",),
        runtime={"threads": 1, "order": "natural", "execution": {"compile": True}},
    )  # fmt: skip
    assert record.words() == (
        "benchmark=b", "method=m", "model=n", "dataset=d", "++method.steps=5", "seed=2",
        "runtime.threads=1", "runtime.execution.compile=True",
    )  # fmt: skip


# ---------------------------------------------------------------- compare


def test_two_methods_are_told_apart_as_on_their_board(planted, capsys):
    results, cells = planted
    found = told(capsys, "compare", cells["good"].id, cells["bad"].id, "--results", results)
    figures = {figure["figure"]: figure for figure in found["figures"]}
    assert figures["error_zoo1"]["better"] == "first"
    assert figures["target_gain_zoo1"]["better"] == "first"
    folders = [results / "cells" / cells[name].id for name in ("good", "bad")]
    rows = [Row([(folder, records.load(folder))]) for folder in folders]
    test = paired(rows, "error_zoo1")[0, 1]
    for name in ("difference", "low", "high", "p", "n"):
        assert figures["error_zoo1"][name] == pytest.approx(getattr(test, name))


def test_the_other_way_round_all_signs_turn(planted, capsys):
    results, cells = planted
    ids = (cells["good"].id, cells["bad"].id)
    one, other = (
        told(capsys, "compare", *pair, "--results", results)["figures"] for pair in (ids, ids[::-1])
    )
    assert one[0]["difference"] == -other[0]["difference"] != 0
    assert (one[0]["low"], one[0]["first"]) == (-other[0]["high"], other[0]["second"])
    assert {f["better"] for f in other} <= {"second", "not told apart"}


def test_a_method_is_compared_over_all_its_seeds(planted, capsys):
    results, cells = planted
    names = [f"edits/{cells[n].names['model']}/{n}" for n in ("good", "bad")]
    found = told(capsys, "compare", *names, "--results", results)
    assert len(found["first"]) == 2 and len(found["second"]) == 1


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [("good", "path", "another benchmark"), ("good", "good again", "nothing but their seed")],
)
def test_what_cannot_be_compared_is_refused(first, second, words, planted, capsys):
    results, cells = planted
    said = answer(capsys, "compare", cells[first].id, cells[second].id, "--results", results)
    assert words in said


# ---------------------------------------------------------------- export


def test_a_folder_for_the_hub_holds_what_its_card_says(planted, tmp_path, capsys):
    results, cells = planted
    words = ("--format", "hf", "--licence", "cc-by-4.0", "--out", tmp_path)
    told(capsys, "export", "--results", results, *words)
    _, header, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(header)
    assert card["license"] == "cc-by-4.0"
    assert [c["config_name"] for c in card["configs"] if c.get("default")] == ["figures"]
    tables = {
        c["config_name"]: pq.read_table(tmp_path / c["data_files"][0]["path"])
        for c in card["configs"]
    }
    assert tables.keys() == {"figures", "samples", "images"}
    assert all(f"`{name}`" in body for name in tables["figures"].column_names)

    figures = tables["figures"].to_pandas().set_index(["cell", "figure"])
    bad = cells["bad"]
    assert figures.loc[(bad.id, "leak_zoo1"), "value"] == bad.scores["leak_zoo1"].value
    samples = tables["samples"].to_pandas()
    own = records.read_samples(results / "cells" / bad.id)
    assert samples[samples["cell"] == bad.id]["leak_zoo1"].tolist() == own["leak_zoo1"].tolist()


def test_images_are_of_the_hubs_own_type(planted, tmp_path, capsys):
    results, cells = planted
    told(capsys, "export", "edits", "--results", results, "--format", "hf", "--out", tmp_path)
    table = pq.read_table(tmp_path / "data" / "images.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["strength"] == {"dtype": "float64", "_type": "Value"}
    assert [field.name for field in table.schema.field("image").type] == ["bytes", "path"]
    rows = table.to_pylist()
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (16, 16)
    kept = pd.read_parquet(results / "cells" / cells["bad"].id / records.IMAGES)
    mine = [row for row in rows if row["cell"] == cells["bad"].id and row["role"] == "output"]
    assert [row["image"]["bytes"] for row in mine] == [b for bs in kept["outputs"] for b in bs]


def test_csv_holds_figures_and_samples_without_formulas(planted, tmp_path, capsys):
    results, _ = planted
    files = told(capsys, "export", "--results", results, "--format", "csv", "--out", tmp_path)[
        "files"
    ]
    assert [file.rsplit("/")[-1] for file in files] == ["figures.csv", "samples.csv"]
    with (tmp_path / "figures.csv").open() as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"good", "bad", "slerp"}


def test_a_licence_that_would_break_the_card_is_refused(planted, tmp_path, capsys):
    words = ("--format", "hf", "--licence", "a: b", "--out", tmp_path)
    assert "must be an identifier" in answer(capsys, "export", "--results", planted[0], *words)
