"""A figure over strengths and along a path, with its band."""

import pandas as pd
import pytest
from planted_results import FRAMES, STRENGTHS, Planted

from latentbench.records import SAMPLES, list_records
from latentbench.reports.boards import boards


def row(results):
    (board,) = boards(list_records(results))
    return board.rows[0]


def test_a_curve_has_the_strengths_that_all_groups_share(tmp_path):
    """The matched strength is the same for both groups here; the best one is not."""
    Planted(tmp_path).edits("a")
    points = row(tmp_path).profile("leak_zoo1")
    assert [p.place for p in points] == [1.0, 2.0, 2.5, 3.0]
    assert all(p.low < p.value < p.high for p in points)


def test_a_point_is_the_mean_over_images_at_its_strength(tmp_path):
    record = Planted(tmp_path).edits("a")
    table = pd.read_parquet(tmp_path / "cells" / record.id / SAMPLES)
    for point in row(tmp_path).profile("error_zoo1"):
        here = table[table["strength"] == point.place]["error_zoo1"]
        assert point.value == pytest.approx(here.mean())


def test_a_chosen_strength_of_the_curve_counts_as_the_curves(tmp_path):
    """It is asked for something else there: its reading is another one."""
    record = Planted(tmp_path).edits("a")
    path = tmp_path / "cells" / record.id / SAMPLES
    table = pd.read_parquet(path)
    curve = table[table["strength"] == 2.0]["error_zoo1"].mean()
    chosen = table["effect"]
    table.loc[chosen, "strength"], table.loc[chosen, "error_zoo1"] = 2.0, 9.0
    found = row(tmp_path)
    found.samples = (table,)
    (point,) = (p for p in found.profile("error_zoo1") if p.place == 2.0)
    assert point.value == pytest.approx(curve)


def test_a_path_has_one_point_per_frame(tmp_path):
    Planted(tmp_path).paths("a")
    assert [p.place for p in row(tmp_path).profile("path_error_zoo1")] == list(range(1, FRAMES + 1))


def test_too_few_images_have_no_band(tmp_path):
    Planted(tmp_path, images=3).edits("a")
    assert {(p.low, p.high) for p in row(tmp_path).profile("leak_zoo1")} == {(None, None)}


def test_what_does_not_change_with_the_output_has_no_profile(tmp_path):
    record = Planted(tmp_path).edits("a")
    path = tmp_path / "cells" / record.id / SAMPLES
    table = pd.read_parquet(path)
    table["leak_zoo1"] = table.groupby(["id", "group"])["leak_zoo1"].transform("first")
    found = row(tmp_path)
    found.samples = (table,)
    assert found.profile("leak_zoo1") == []
    assert len(found.profile("id_zoo1")) == len(STRENGTHS) + 1
    assert found.profile("no_such_figure") == []
