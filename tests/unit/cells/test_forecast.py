"""What a command would compute, told without computing it."""

from dataclasses import replace

import cells
import pytest

from latentbench.cells.command_line import ended_by, progress
from latentbench.cells.composing import Composed
from latentbench.cells.forecast import expected, tell_cells
from latentbench.errors import BadInput
from latentbench.records import Record, Status

BASE = ["benchmark=acme", "dataset=acme", "tracker=none", "runtime.batch_size=4"]


def told(capsys, results, *words):
    places = [f"results.dir={results}", f"results.cache={results}/cache"]
    code = tell_cells(["-m", *BASE, *places, *words])
    return code, capsys.readouterr().err


def test_cells_are_told_apart_and_what_is_ahead_is_estimated(tmp_path, capsys):
    record, _ = cells.run(tmp_path)
    words = ("model=acme,acme_double", "method=acme,acme_attending", "benchmark.n=10")
    before = sorted(tmp_path.glob("cells/*"))
    code, text = told(capsys, tmp_path, *words)
    assert code == 0
    assert "4 cells: 1 would run, 1 are there, 2 skipped" in text
    assert "acme on acme_double" in text
    assert "requires the space attention: acme_attending on acme, acme_double" in text
    assert f"expected evaluations of the denoiser: {record.total('forward')} in 1 cells" in text
    assert sorted(tmp_path.glob("cells/*")) == before
    assert not (tmp_path / "leaderboard.md").exists()


def test_cells_that_are_known_are_told_from_the_pieces_of_their_configs(
    tmp_path, capsys, monkeypatch
):
    words = ("model=acme", "method=acme,acme_attending", "seed=0,1", "++method.gain=2")
    first = told(capsys, tmp_path, *words)
    assert "acme gain=2 on acme, acme of acme, seed 1" in first[1]
    assert "acme_attending gain" not in first[1]  # which has no such setting
    monkeypatch.setattr(Composed, "config", property(lambda cell: pytest.fail("put together")))
    assert told(capsys, tmp_path, *words) == first


def test_a_cell_that_would_fail_is_told_with_its_reason(tmp_path, capsys):
    code, text = told(capsys, tmp_path, "model=acme", "method=acme", "++method.gian=2")
    assert code == 1
    assert "unknown setting of method 'gian'" in text


def test_an_address_that_no_driver_opens_is_refused_in_a_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "begun", False)
    words = ["-m", *BASE, "model=acme", "method=acme", f"results.dir={tmp_path}"]
    with pytest.raises(BadInput) as refused:
        tell_cells([*words, "results.cache=nowhere://bucket"])
    assert ended_by(refused.value) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("results.cache=nowhere://bucket cannot be used: ")
    assert "\n" not in said


def cell(model, n, steps, evaluations=0):
    config = {
        "method": {"_target_": "m.M"},
        "benchmark": {"_target_": "b.B", "n": n},
        "model": {"_target_": model, "steps": steps},
    }
    spent = {"run": {"forward": evaluations, "backward": 0}}
    names = {"model": model}
    return Record(f"{model}{n}", Status.OK, names, 0, config, evaluations=spent)


@pytest.mark.parametrize(
    ("there", "count"),
    [
        ([cell("a", 10, 5, 100)], 400),  # twice the images, twice the steps
        ([cell("c", 10, 5, 1), cell("a", 20, 10, 7)], 7),  # the same model before another
        ([cell("c", 10, 5, 3)], 12),
        ([replace(cell("a", 10, 5, 100), status=Status.FAILED)], None),
        ([], None),
    ],
)
def test_what_is_expected_follows_the_likest_cell(there, count):
    assert expected(cell("a", 20, 10), there) == count
