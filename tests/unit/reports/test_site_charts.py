"""Charts of a board: which there are, what they hold, and that Vega-Lite takes them."""

import pytest
import vl_convert
from planted_results import FRAMES, Planted

from latentbench.records import list_records
from latentbench.reports.boards import boards
from latentbench.reports.site.charts import COLOURS, SHAPES, charts, front, looks


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    planted = Planted(results)
    for method, quality in (("good", 0.9), ("fair", 0.5), ("poor", 0.1)):
        planted.edits(method, quality)
        planted.paths(method, quality)
    planted.edits("good", 0.8, seed=1)
    return boards(list_records(results))


def drawn(made, benchmark):
    (board,) = (b for b in made if b.benchmark == benchmark)
    link = lambda row: f"../cells/{row.first.id}.html"  # noqa: E731
    return board, {chart.name: chart for chart in charts(board, [board], looks(made), link)}


def data(chart):
    return chart.spec["data"]["values"]


def test_edits_have_trades_cost_curves_judges_and_seeds(made):
    _, found = drawn(made, "edits")
    assert list(found) == [
        *("target_gain_zoo1-id_zoo1", "target_gain_zoo1-leak_zoo1", "cost", "profile-error_zoo1"),
        *("profile-target_gain_zoo1", "profile-id_zoo1", "profile-leak_zoo1", "judges", "seeds"),
    ]


def test_paths_have_profiles_over_their_frames(made):
    _, found = drawn(made, "paths")
    assert list(found) == ["cost", "profile-path_error_zoo1", "judges"]
    xs = {datum["x"] for datum in data(found["profile-path_error_zoo1"])}
    assert xs == set(range(1, FRAMES + 1))


def test_values_and_intervals_are_those_of_the_board(made):
    board, found = drawn(made, "edits")
    for row, datum in zip(board.rows, data(found["target_gain_zoo1-leak_zoo1"]), strict=True):
        for axis, figure in (("x", "target_gain_zoo1"), ("y", "leak_zoo1")):
            entry = row.scores[figure]
            ends = [datum[axis], datum[f"{axis}_low"], datum[f"{axis}_high"]]
            assert ends == [entry.value, entry.low, entry.high]
        assert datum["href"] == f"../cells/{row.first.id}.html"


def test_each_seed_is_a_point(made):
    board, found = drawn(made, "edits")
    points = found["seeds"].spec["layer"][-1]["data"]["values"]
    (row,) = (row for row in board.rows if len(row.seeds) == 2)
    assert {p["seed"]: p["x"] for p in points} == {
        str(seed): value for seed, value in row.raw("error_zoo1").items()
    }


def test_vega_lite_takes_every_chart(made):
    for benchmark in ("edits", "paths"):
        for chart in drawn(made, benchmark)[1].values():
            assert vl_convert.vegalite_to_vega(chart.spec | {"width": 300})["marks"]


def test_the_front_is_what_nobody_beats():
    points = [(1, 1), (2, 2), (3, 1), (2, 3), (2, 3)]
    assert front(points, (True, True)) == [False, False, True, True, True]
    assert front(points, (True, False)) == [False, False, True, False, False]


def test_no_two_of_56_methods_look_alike():
    pairs = {(COLOURS[k % len(COLOURS)], list(SHAPES)[k % len(SHAPES)]) for k in range(56)}
    assert len(pairs) == 56
