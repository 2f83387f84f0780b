"""Galleries and comparisons: what is shown beside what, and what the tests say."""

import json

import pandas as pd
import pytest
from planted_results import FRAMES, STRENGTHS, Planted, flat

from latentbench.records import IMAGES, list_records
from latentbench.reports.boards import boards
from latentbench.reports.site.compare import Comparisons
from latentbench.reports.site.gallery import Gallery, files_of


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    planted = Planted(folder)
    for method, quality in (("good", 0.9), ("poor", 0.1)):
        planted.edits(method, quality)
        planted.paths(method, quality)
    return folder


@pytest.fixture(scope="module")
def made(results):
    return {board.benchmark: board for board in boards(list_records(results))}


def test_one_line_per_image_and_edit_with_all_methods(made):
    gallery = Gallery(made["edits"])
    assert gallery.methods == ["good", "poor"]
    assert [line.key for line in gallery.lines] == [
        (f"test/{k}", group) for group in ("smile+", "hat+") for k in range(4)
    ]
    assert all(len(line.shots) == 2 and None not in line.shots for line in gallery.lines)


def test_the_slider_runs_from_the_reconstruction_over_the_curve(made):
    shots = Gallery(made["edits"]).lines[0].shots[0]
    words = [shots.says[k] for k in shots.curve]
    assert words == ["reconstruction", *(f"strength {s:.3g}" for s in STRENGTHS)]
    assert (shots.says[shots.best], shots.says[shots.matched]) == ("strength 1.5", "strength 2.5")


def test_strengths_that_were_given_in_any_order_are_sorted(tmp_path):
    record = Planted(tmp_path, kept=1).edits("a")
    path = tmp_path / "cells" / record.id / IMAGES
    (board,) = boards(list_records(tmp_path))
    images = pd.read_parquet(path)
    images["strengths"] = [[3.0, 1.0, 2.0, 1.5, 2.5]] * len(images)
    images.to_parquet(path, index=False)
    shots = Gallery(board).lines[0].shots[0]
    words = [shots.says[k] for k in shots.curve]
    assert words == ["reconstruction", "strength 1", "strength 2", "strength 3"]


def test_what_all_share_is_one_picture_and_one_file(results, made):
    gallery = Gallery(made["edits"])
    files = [files_of(row.folders[0]) for row in gallery.rows]
    for line in gallery.lines:
        assert line.truth is not None
        assert all(file[line.truth.src] and file[line.source.src] for file in files)
    assert all(data.startswith(b"RIFF") for file in files for data in file.values())


def test_answers_that_differ_are_not_shown_as_one(tmp_path):
    planted = Planted(tmp_path)
    records = [planted.edits(method, quality) for method, quality in (("a", 0.9), ("b", 0.1))]
    path = tmp_path / "cells" / records[0].id / IMAGES
    images = pd.read_parquet(path)
    images["truths"] = [[flat(7, 7)] * 5] * len(images)
    (board,) = boards(list_records(tmp_path))
    images.to_parquet(path, index=False)
    assert {line.truth for line in Gallery(board).lines} == {None}


def test_images_are_ordered_by_what_the_table_says_of_them(made):
    gallery = Gallery(made["edits"])
    row, line = gallery.rows[0], gallery.lines[0]
    for figure in ("error_zoo1", "leak_zoo1"):
        wanted = row.values(figure).xs((0, *line.key), level=("seed", "id", "group")).mean()
        got = line.shots[0].values[gallery.figures.index(figure)]
        assert got == pytest.approx(wanted, rel=1e-3)


def test_paths_show_their_frames_between_the_ends(made):
    gallery = Gallery(made["paths"])
    assert gallery.is_path and gallery.stops == FRAMES
    assert {len(shots.frames) for line in gallery.lines for shots in line.shots} == {FRAMES + 2}
    assert {len(line.answers) for line in gallery.lines} == {FRAMES + 2}


def test_a_board_without_pictures_has_no_gallery(tmp_path):
    Planted(tmp_path, kept=0).edits("a")
    (board,) = boards(list_records(tmp_path))
    assert Gallery(board).rows == [] == Gallery(board).lines


def test_a_comparison_says_what_the_ranking_says(made):
    board = made["edits"]
    found = Comparisons(board).pairs("error_zoo1")
    ranking = board.rankings["error_zoo1"]
    test = found.tests["0 1"]
    assert test["difference"] == ranking.pairs[0, 1].difference < 0
    assert (test["p"], test["apart"]) == (ranking.corrected[0, 1], True)
    first = dict(zip(found.keys, found.values[0], strict=True))
    means = board.rows[0].values("error_zoo1").groupby(["seed", "id", "group"]).mean()
    assert first["0", "test/3", "hat+"] == pytest.approx(means[0, "test/3", "hat+"], rel=1e-4)


def test_the_script_of_a_comparison_is_json_that_ends_no_tag(tmp_path):
    planted = Planted(tmp_path)
    for quality in (0.9, 0.1):
        planted.edits(f"</script>{quality}", quality)
    (board,) = boards(list_records(tmp_path))
    text = Comparisons(board).pairs("error_zoo1").script().decode()
    assert "</" not in text
    assert json.loads(text.removeprefix('latentbench.compared("error_zoo1",').rstrip(");\n"))
