"""The comparisons that need no further package (slow ones are marked), and what runs them."""

import pytest

from agreement import cases as agreement
from agreement.__main__ import main


def name(case):
    return f"{case.figure}-{case.package or 'definition'}".replace(" ", "_")


CASES = [
    pytest.param(case, id=name(case), marks=() if case.quick else pytest.mark.slow)
    for case in agreement.load_cases()
    if not case.extra
]


@pytest.mark.parametrize("case", CASES)
def test_agrees_with_the_reference(case):
    outcome = agreement.run_case(case)
    assert outcome.agrees, outcome.row()


def case(ours, theirs, relative=False):
    def measure():
        return ours, theirs

    return agreement.Case("f", "g", "numpy", "x", 1e-3, measure, relative)


def test_beyond_the_tolerance_is_found_and_marked():
    good, bad = agreement.run_case(case([1, 2], [1, 2])), agreement.run_case(case([1, 2], [1, 2.5]))
    assert good.agrees and bad.difference == 0.5
    assert agreement.beyond([good, bad]) == [bad]
    assert "**5.0e-01**" in agreement.report([good, bad])


def test_relative_to_the_largest_reference_value():
    assert agreement.run_case(case([99.0], [100.0], relative=True)).difference == pytest.approx(
        0.01
    )


@pytest.mark.parametrize("values", [([1, 2], [1]), ([float("nan")], [1])])
def test_what_cannot_be_compared_does_not_agree(values):
    outcome = agreement.run_case(case(*values))
    assert not outcome.agrees and "ValueError" in outcome.row()[4]


def test_the_command_exits_non_zero_beyond_a_tolerance(tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.md"
    for theirs, code in ((1.0, 0), (2.0, 1)):
        cases = [case([1.0], [theirs])]
        monkeypatch.setattr(agreement, "load_cases", lambda cases=cases: cases)
        assert main(["--out", str(out)]) == code
        assert "| `f` | g | numpy" in out.read_text()
    assert str(out) in capsys.readouterr().out
