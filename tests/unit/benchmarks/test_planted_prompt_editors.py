"""Prompt editing on faces puts planted editors where they belong, through the real runner."""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status

METRICS = ("edit_error_image", "edit_error", "background", "caption_direction")
OTHERS = ("OneFace", "OtherFace")
MAIN, IMAGE = "edit_error_zoo1", "edit_error_image"


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from an editor to the scores of its cell, over all kinds of edit."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        planted = f"planted_prompt_editors.{method}"
        record = run(folder, "prompt_editing", planted, METRICS, ("benchmark.n=4",))
        assert record.status is Status.OK, record.reason
        assert record.main_score == MAIN and not record.switched_off
        return {name: entry.value for name, entry in record.scores.items()}

    return found


@pytest.mark.slow
def test_the_truth_stands_alone_in_front_and_doing_nothing_is_1(scores):
    truth, idle = scores("Prompted"), scores("Tiny")
    errors = [value for name, value in truth.items() if name.startswith((MAIN, IMAGE))]
    assert errors == pytest.approx([0.0] * 14, abs=0.01)  # both figures: all, and each kind
    assert (idle[MAIN], idle[IMAGE]) == pytest.approx((1, 1), abs=0.02)
    assert idle["bg_psnr"] > 60  # the background alone would put it first
    rest = ("Blurred", "HalfOfAll", "Leaky k=1", "Tiny", *OTHERS)
    assert min(scores(name)[MAIN] for name in rest) > truth[MAIN] + 0.02


@pytest.mark.slow
def test_another_person_and_blur_are_far_behind_doing_nothing(scores):
    for figure in (MAIN, IMAGE):
        error = {name: scores(name)[figure] for name in ("Blur", *OTHERS)}
        assert min(error.values()) > 1.3, (figure, error)


@pytest.mark.slow
def test_half_of_the_images_are_half_of_the_way(scores):
    half = scores("HalfOfAll")
    assert (half[MAIN], half[IMAGE]) == pytest.approx((0.5, 0.5), abs=0.15)
    assert scores("Blurred")[MAIN] < scores("Leaky k=1")[MAIN] < 1


@pytest.mark.slow
def test_the_direction_of_the_change_would_put_another_person_before_doing_nothing(scores):
    direction = {name: scores(name)["cdir_clip2"] for name in ("Prompted", "Tiny", *OTHERS)}
    assert max(direction, key=lambda name: direction[name]) == "Prompted"
    assert min(direction[name] for name in OTHERS) > direction["Tiny"] + 0.1
