"""Local editing puts planted editors where they belong, through the real runner."""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status

METRICS = ("edit_error_image", "edit_error", "background")
SMALL = ("benchmark.n=8", "benchmark.calibration_n=6")


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from an editor to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, edit="glasses+"):
        given = (*SMALL, f"benchmark.attributes=[{edit}]")
        record = run(folder, "local_editing", f"planted_editors.{method}", METRICS, given)
        assert record.status is Status.OK, record.reason
        assert record.main_score == "edit_error_image"
        return {name: entry.value for name, entry in record.scores.items()}

    return found


@pytest.mark.slow
def test_keeping_the_background_by_doing_nothing_wins_nothing(scores):
    idle, perfect = scores("Tiny"), scores("Perfect")
    assert perfect["edit_error_image"] < 0.02
    assert idle["edit_error_image"] == pytest.approx(1, abs=0.02)
    assert idle["bg_psnr"] is None  # the effect is not reached


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["glasses+", "smile+"])
def test_perfect_stands_alone_in_front(scores, edit):
    perfect = scores("Perfect", edit)["edit_error_image"]
    assert perfect < 0.05
    others = (
        "PerfectBlurred",
        "Reckless",
        "HalfMix",
        "Leaky k=1",
        "Tiny",
        "OtherFace",
        "TinyGarbage",
    )
    errors = {name: scores(name, edit)["edit_error_image"] for name in others}
    assert min(errors.values()) > perfect + 0.1, errors
    assert errors["OtherFace"] > 1.2 and errors["TinyGarbage"] > 1
    assert errors["OtherFace"] > max(v for k, v in errors.items() if k not in ("OtherFace",))


@pytest.mark.slow
def test_a_change_of_the_background_is_in_the_main_score_and_in_the_background(scores):
    perfect, reckless = scores("Perfect", "smile+"), scores("Reckless", "smile+")
    assert reckless["edit_error_image"] > perfect["edit_error_image"] + 0.5
    assert reckless["bg_psnr"] < perfect["bg_psnr"] - 10


@pytest.mark.slow
def test_the_whole_edit_on_half_of_the_images_is_ahead_of_ghosts_on_all(scores):
    half, ghost = (scores(m)["edit_error_image"] for m in ("PerfectBinary", "HalfMix"))
    assert half == pytest.approx(0.5, abs=0.2) and half + 0.2 < ghost
