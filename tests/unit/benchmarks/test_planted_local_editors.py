"""Local editing puts planted editors where they belong, through the real runner."""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status

METRICS = ("edit_error", "edit_error_image", "background")
MAIN, IMAGE = "edit_error_zoo1", "edit_error_image"
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
        assert record.main_score == MAIN
        return {name: entry.value for name, entry in record.scores.items()}

    return found


@pytest.mark.slow
@pytest.mark.parametrize("figure", [MAIN, IMAGE])
def test_keeping_the_background_by_doing_nothing_wins_nothing(scores, figure):
    idle, perfect = scores("Tiny"), scores("Perfect")
    assert perfect[figure] < 0.02
    assert idle[figure] == pytest.approx(1, abs=0.02)
    assert idle["bg_psnr"] is None  # the effect is not reached


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["glasses+", "smile+"])
def test_perfect_stands_in_front(scores, edit):
    perfect = scores("Perfect", edit)
    assert perfect[MAIN] < 0.05 and perfect[IMAGE] < 0.05
    others = ("Reckless", "HalfMix", "Leaky k=1", "Tiny", "OtherFace", "TinyGarbage")
    found = {name: scores(name, edit) for name in others}
    assert min(at[MAIN] for at in found.values()) > perfect[MAIN] + 0.25, found
    assert max(found, key=lambda name: found[name][MAIN]) == "OtherFace"
    assert found["OtherFace"][MAIN] > 1.2 and found["TinyGarbage"][MAIN] > 1
    assert perfect[MAIN] < scores("PerfectBlurred", edit)[MAIN] < 0.2
    assert scores("PerfectBlurred", edit)[IMAGE] > 0.2  # factors hardly see blur


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["glasses+", "smile+"])
def test_a_change_of_the_background_is_in_the_main_score_and_in_the_background(scores, edit):
    perfect, reckless = scores("Perfect", edit), scores("Reckless", edit)
    assert reckless[MAIN] > perfect[MAIN] + 0.4
    assert reckless[IMAGE] > 1.5
    assert reckless["bg_psnr"] < perfect["bg_psnr"] - 10


@pytest.mark.slow
def test_the_whole_edit_on_half_of_the_images_is_ahead_of_ghosts_on_all(scores):
    half, ghost = (scores(m)[MAIN] for m in ("PerfectBinary", "HalfMix"))
    assert half == pytest.approx(0.5, abs=0.2) and half + 0.2 < ghost
