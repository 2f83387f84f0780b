"""Prompt editing on faces puts planted editors where they belong, through the real runner."""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status

METRICS = ("edit_error_image", "edit_error", "background", "caption_direction")
OTHERS = ("OneFace", "OtherFace", "Neighbour")


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from an editor to the scores of its cell, over all kinds of edit."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        planted = f"planted_prompt_editors.{method}"
        record = run(folder, "prompt_editing", planted, METRICS, ("benchmark.n=4",))
        assert record.status is Status.OK, record.reason
        assert record.main_score == "edit_error_image" and not record.switched_off
        return {name: entry.value for name, entry in record.scores.items()}

    return found


@pytest.mark.slow
def test_the_truth_stands_alone_in_front_and_doing_nothing_is_1(scores):
    truth, idle = scores("Prompted"), scores("Tiny")
    errors = [value for name, value in truth.items() if name.startswith("edit_error_image")]
    assert len(errors) == 7  # all, and each kind
    assert errors == pytest.approx([0.0] * 7, abs=0.01)
    assert idle["edit_error_image"] == pytest.approx(1, abs=0.01)
    assert idle["bg_psnr"] > 60  # the background alone would put it first
    rest = ("Blurred", "HalfOfAll", "HalfMix", "Leaky k=1", *OTHERS)
    assert min(scores(name)["edit_error_image"] for name in rest) > 0.1


@pytest.mark.slow
def test_harm_is_behind_doing_nothing_and_another_person_is_far_behind(scores):
    error = {m: scores(m)["edit_error_image"] for m in ("Blur", "Leaky k=1", "Leaky k=4", *OTHERS)}
    assert min(error.values()) > 1.1, error
    assert error["Leaky k=4"] > error["Leaky k=1"]
    assert min(error[m] for m in OTHERS) > error["Leaky k=4"]


@pytest.mark.slow
def test_half_of_the_images_are_half_of_the_way_and_ghosts_are_less(scores):
    half, ghosts = scores("HalfOfAll"), scores("HalfMix")
    assert half["edit_error_image"] == pytest.approx(0.5, abs=0.1)
    assert ghosts["edit_error_image"] > half["edit_error_image"] + 0.2
    assert ghosts["edit_error_image/add_object"] > 0.9


@pytest.mark.slow
def test_the_direction_of_the_change_would_put_another_person_before_doing_nothing(scores):
    direction = {name: scores(name)["cdir_clip2"] for name in ("Prompted", "Tiny", *OTHERS)}
    assert max(direction, key=lambda name: direction[name]) == "Prompted"
    assert min(direction[name] for name in OTHERS) > direction["Tiny"] + 0.1
