"""Where planted generators come out when their noise is shifted."""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status

FIRST = 0.25  # area of the triangle from (0, 1) to (half of the largest shift, 0)


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    """Return a function from a planted method to its main score."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        settings = ("benchmark.n=16", "benchmark.shifts=[mean 0.5,mean 1]")
        name = f"planted_robustness.{method}"
        record = run(folder, "robustness", name, ("retention",), settings)
        assert record.status is Status.OK, record.reason
        return record.scores[record.main_score]

    return found


@pytest.mark.slow
def test_who_keeps_to_the_caption_is_alone_in_front(score):
    assert score("Obedient").value == pytest.approx(1)
    for method in ("Brittle", "Collapsed"):
        assert score(method).value == pytest.approx(FIRST, abs=0.1), method


@pytest.mark.slow
@pytest.mark.parametrize("method", ["Deaf", "OnePicture", "Static"])
def test_who_never_kept_to_a_caption_has_no_figure(score, method):
    assert score(method).value is None
    assert "no condition to lose" in score(method).note
