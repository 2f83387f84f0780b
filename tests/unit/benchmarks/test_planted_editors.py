"""Attribute editing puts planted editors where they belong, through the real runner.

A perfect editor stands alone in front; what cheats, harms or does nothing does not pass for it.
"""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status
from metrics.edits.edit_error import SMALLEST

THING, GRADED = "glasses+", "smile+"
METRICS = ("edit_error", "edit_error_image", "target_gain")
SMALL = ("benchmark.n=8", "benchmark.calibration_n=6")
HONEST = ("Leaky k=1", "Leaky k=2", "Leaky k=4")
IDLE = ("Tiny", "GlobalBlur", "BrightnessShift", "TinyGarbage", "Compressed")
BLURRED = ("PerfectBlurred", "LossyInversion")  # by .4 pixels, which judges nearly read through
OTHERS = ("OneFace", "OtherFace", "OtherFaceBoth")


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    """Return a function from an editor and an edit to the record's scores and what was chosen."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, edit, *settings):
        given = (*SMALL, f"benchmark.attributes=[{edit}]", *settings)
        record = run(folder, "attribute_editing", f"planted_editors.{method}", METRICS, given)
        assert record.status is Status.OK, record.reason
        assert record.main_score == "edit_error_zoo1"
        return record.scores, record.setup[edit]

    return found


@pytest.fixture(scope="module")
def error(verdict):
    """Return a function to the main score, and one to the image's."""
    return lambda method, edit, figure="edit_error_zoo1": verdict(method, edit)[0][figure].value


def test_the_answer_is_0_and_half_of_it_is_half(error):
    assert error("Perfect", THING) < 0.02
    assert error("PerfectBinary", THING) == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_the_half_done_is_ahead_of_the_ghost(error):
    assert error("PerfectBinary", THING) + 0.2 < error("HalfMix", THING)


@pytest.mark.slow
def test_another_person_is_worse_than_nothing_in_reconstruction_and_edit(verdict):
    scores, _ = verdict("OtherFaceBoth", THING)
    assert scores["edit_error_zoo1"].value > 1.2
    assert scores["inversion_error_zoo1"].value > 1


def test_an_edit_that_copies_the_source_is_refused(tmp_path):
    given = (*SMALL, f"benchmark.attributes=[{THING}]")
    record = run(tmp_path, "attribute_editing", "planted_editors.IdentityCopy", METRICS, given)
    assert record.status is Status.FAILED and "NoEffect" in record.reason


@pytest.mark.slow
@pytest.mark.parametrize("edit", [THING, GRADED])
class TestOrder:
    def test_perfect_stands_alone_in_front(self, error, edit):
        perfect = error("Perfect", edit)
        assert perfect < 0.02 and error("Perfect", edit, "edit_error_image") < 0.05
        for other in (*HONEST, *IDLE, *OTHERS, "HalfMix", *BLURRED):
            margin = SMALLEST if other in BLURRED else 0.05
            assert error(other, edit) > perfect + margin, other
            assert error(other, edit, "edit_error_image") > 0.1, other

    def test_slight_blur_is_behind_and_before_honest_imperfect_editors(self, error, edit):
        assert error("PerfectBlurred", edit) < error("Leaky k=1", edit)

    def test_leaks_count_in_their_order(self, error, edit):
        one, two, four = (error(method, edit) for method in HONEST)
        assert one + 0.05 < two < four - 0.05

    def test_what_inversion_loses_is_in_the_main_score_and_in_its_own_column(self, error, edit):
        assert error("LossyInversion", edit) == pytest.approx(error("PerfectBlurred", edit))
        for figure in ("inversion_error_zoo1", "inversion_error_image"):
            assert error("LossyInversion", edit, figure) > 0.02
            assert error("PerfectBlurred", edit, figure) == pytest.approx(0, abs=1e-3)

    def test_what_does_not_edit_is_not_reached_and_as_good_as_nothing(self, error, verdict, edit):
        for method in IDLE:
            assert not verdict(method, edit)[1]["reached"], method
            assert error(method, edit) > 0.85, method
            assert error(method, edit, "edit_error_image") > 0.9, method

    def test_other_people_are_last(self, error, edit):
        best = min(error(method, edit) for method in OTHERS)
        before = (*HONEST, *IDLE, "HalfMix", "PerfectBinary", "WrongAttribute", "Coarse")
        assert best > max(error(method, edit) for method in before)
        assert best > 1.2

    def test_the_answer_of_another_image_and_the_mirrored_answer_are_harm(self, error, edit):
        assert error("Neighbour", edit) > 1.5
        assert error("Mirrored", edit) > 0.95
        for method in ("Neighbour", "Mirrored"):
            assert error(method, edit, "edit_error_image") > 1.5, method

    def test_what_is_known_of_other_images_alone_is_as_good_as_nothing(self, error, edit):
        """Strengths are chosen on images that are not scored: here, where the editor is perfect."""
        for figure in ("edit_error_zoo1", "edit_error_image"):
            assert error("Overfit", edit, figure) == pytest.approx(1, abs=0.01)

    def test_the_wrong_attribute_is_not_reached(self, error, verdict, edit):
        assert not verdict("WrongAttribute", edit)[1]["reached"]
        assert error("WrongAttribute", edit) > 0.95

    def test_what_breaks_down_late_is_judged_where_it_is_right(self, error, verdict, edit):
        assert error("LateGarbage", edit) < 0.3
        assert verdict("LateGarbage", edit)[1]["main"] < 0.3

    def test_three_strengths_that_miss_the_effect_are_told_and_gain_nothing(
        self, error, verdict, edit
    ):
        scores, found = verdict("Coarse", edit)
        assert not found["reached"] or edit == THING
        if not found["reached"]:
            assert scores["target_gain_zoo1"].value is None
            assert "did not reach" in scores["target_gain_zoo1"].note
        assert error("Coarse", edit) > error("Perfect", edit)

    def test_an_attack_on_the_judge_that_matches_is_seen_by_the_others(self, verdict, edit):
        """Of a graded factor the judge that scores reads a part as well, but not half of it."""
        scores, found = verdict("Adversarial", edit)
        assert found["main_error"] < scores["edit_error_zoo1"].value - 0.1
        assert scores["edit_error_zoo1"].value > 0.75
        assert not found["reached"]
        assert scores["edit_error_image"].value > 0.95

    def test_an_attack_on_the_judge_that_scores_is_seen_by_the_image(self, verdict, edit):
        scores, found = verdict("Adversarial judge=zoo1", edit)
        assert not found["reached"] and found["matched_image_gain"] < 0.1
        assert scores["edit_error_image"].value > 0.95


@pytest.mark.slow
def test_the_whole_of_a_graded_factor_on_half_of_the_images_is_no_worse_than_nothing(error):
    assert error("PerfectBinary", GRADED) == pytest.approx(1, abs=0.1)
    assert error("HalfMix", GRADED) > 0.15
