"""Direction discovery puts methods whose directions are known where they belong."""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status

SETTINGS = ("benchmark.n=8", "benchmark.directions=6", "benchmark.calibration_n=4")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """Return a function from a planted method to the record of its cell."""
    folder = tmp_path_factory.mktemp("directions")

    @cache
    def found(name, *settings):
        method = f"planted_directions.{name}"
        metrics = ("discovery", "identity_preservation")
        return run(folder, "direction_discovery", method, metrics, (*SETTINGS, *settings))

    return found


@pytest.fixture(scope="module")
def figures(record):
    def found(name):
        made = record(name)
        assert made.status is Status.OK, made.reason
        return {figure.removesuffix("_zoo1"): s.value for figure, s in made.scores.items()}

    return found


def test_the_factors_themselves_are_near_to_one(figures):
    found = figures("Factors")
    assert 0.75 < found["discovery"] < 1.1
    assert found["direction_coverage"] == 1 and found["transfer"] == 1
    assert found["direction_diversity"] > 0.9
    assert min(found["dci_d"], found["dci_c"]) > 0.5 and found["dci_i"] > 0.8


def test_another_fit_in_another_order_is_stable(figures, record):
    found = figures("Factors")
    assert found["stability"] > 0.98
    assert "between the method and noise" in record("Factors").scores["stability_zoo1"].note
    assert figures("Noise")["stability"] < 0.7


def test_noise_is_no_better_than_noise(figures):
    found = figures("Noise")
    assert abs(found["discovery"]) < 0.1 and found["direction_coverage"] == 0


def test_one_direction_again_and_again_is_selective_and_counts_once(figures):
    found = figures("Repeated")
    assert found["direction_selectivity"] > 0.4 and abs(found["direction_diversity"]) < 1e-6
    assert found["discovery"] < 0.2 and found["direction_coverage"] == pytest.approx(1 / 6)


def test_a_mixture_of_the_right_directions_is_far_from_them(figures):
    assert figures("Mixed")["discovery"] < 0.2 and figures("Mixed")["direction_coverage"] <= 1 / 3


def test_the_right_directions_on_other_people_are_worth_nothing(figures):
    found = figures("Stranger")
    assert found["discovery"] < 0.1 and found["transfer"] < 0.7
    assert found["id"] < 0.5 < figures("Factors")["id"]


@pytest.mark.parametrize("name", ["OneFace", "OtherPerson"])
def test_the_right_directions_on_somebody_else_are_worth_little(figures, name):
    assert figures(name)["discovery"] < 0.15


def test_what_no_one_sees_is_worth_nothing(figures):
    assert abs(figures("Unseen")["discovery"]) < 0.02


def test_what_does_nothing_is_refused(record):
    found = record("Idle")
    assert found.status is Status.FAILED and "NoEffect" in found.reason


def test_too_few_directions_are_refused_before_any_work(record):
    found = record("Factors", "benchmark.directions=7")
    assert found.status is Status.SKIPPED
    assert "finds 6 directions by itself, DirectionDiscovery asks for 7" in found.reason
