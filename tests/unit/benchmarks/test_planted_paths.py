"""Interpolation puts planted paths where they belong, through the real runner.

Faces moved evenly are alone in front; what stands still, jumps, fades or washes out is behind.
"""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status
from metrics.edits.edit_error import SMALLEST

QUICK = ("path_error_image",)
ALL = (*QUICK, "path_error", "projection", "istd", "path", "path_ends", "factor_path")
UNEVEN, ABSENT = ("Eased", "Jump", "Late"), ("Still", "There")
UNREAL = ("CrossFade", "ThroughMean", "Blurred", "LowContrast", "Noisy")
ASTRAY = ("OtherEnds", "Swapped")


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Return a function from a planted path to its record's figures."""
    folder = tmp_path_factory.mktemp("paths")

    @cache
    def found(method, metrics=ALL, kind="image", n=8):
        given = (f"benchmark.n={n}", "benchmark.frames=7", f"benchmark.kind={kind}")
        planted = f"planted_paths.{method}"
        record = run(folder, "interpolation", planted, metrics, given, "planted_paths.Drawn")
        assert record.status is Status.OK, record.reason
        assert record.main_score == "path_error_image"
        return {name: score.value for name, score in record.scores.items()}

    return found


def test_the_even_path_is_0_and_a_cross_fade_is_no_path(figures):
    even, fade = (figures(name, QUICK, n=3)["path_error_image"] for name in ("Even", "CrossFade"))
    assert even < 1e-3 and fade > 1


@pytest.mark.slow
class TestOrder:
    def test_the_even_path_stands_alone_in_front(self, figures):
        for figure in ("path_error_image", "path_error_zoo1"):
            assert figures("Even")[figure] < 1e-3
            for other in (*UNEVEN, *ABSENT, *UNREAL, *ASTRAY, "Detour"):
                assert figures(other)[figure] > 0.15, (other, figure)

    def test_what_is_no_path_is_as_far_as_a_jump_or_further(self, figures):
        assert figures("Jump")["path_error_image"] == pytest.approx(1, abs=0.02)
        for other in ("Late", *ABSENT, *ASTRAY, "CrossFade", "ThroughMean"):
            assert figures(other)["path_error_image"] > 0.95, other

    def test_what_no_face_explains_is_last_in_realism(self, figures):
        real = [figures(name)["inner_projection_zoo1"] for name in ("Even", *UNEVEN, *ABSENT)]
        for other in UNREAL:
            assert figures(other)["inner_projection_zoo1"] > max(real) + 0.08, other
        for ghost in ("CrossFade", "ThroughMean"):
            assert figures(ghost)["inner_projection_zoo1"] > 2 * max(real)

    def test_a_face_that_changes_and_changes_back_is_real(self, figures):
        detour, even = (figures(name)["inner_projection_zoo1"] for name in ("Detour", "Even"))
        assert detour == pytest.approx(even, abs=0.08)

    def test_uneven_paths_are_behind_in_evenness(self, figures):
        even = figures("Even")
        for other in UNEVEN:
            found = figures(other)
            assert found["istd_factor_zoo1"] > even["istd_factor_zoo1"] + 0.1, other
            assert found["istd_cv"] > even["istd_cv"] + 0.1, other
            assert found["smooth_gini_zoo1"] < even["smooth_gini_zoo1"] - 0.1, other

    def test_what_goes_astray_by_a_little_is_behind_by_a_little(self, figures):
        """And in evenness as well; only a wavering path takes steps of nearly the same size."""
        even, late = figures("Even"), figures("Late")
        for other in ("SlowFast", "Repeated", "Stranger", "Wavering"):
            found = figures(other)
            assert SMALLEST < found["path_error_image"] < late["path_error_image"], other
            assert found["inner_projection_zoo1"] == pytest.approx(
                even["inner_projection_zoo1"], abs=0.08
            ), other
            assert found["istd_cv"] > even["istd_cv"] + (0.3 if other != "Wavering" else 0.02)

    def test_real_faces_that_are_not_between_the_ends_are_no_path(self, figures):
        for other in ("MeanFactors", "Mirrored"):
            assert figures(other)["path_error_image"] > 0.9, other

    def test_fades_win_evenness_in_pixels_and_lose_it_in_factors(self, figures):
        even, fade = figures("Even"), figures("CrossFade")
        assert fade["istd_cv"] < 1e-3 < even["istd_cv"]
        assert fade["istd_factor_zoo1"] > even["istd_factor_zoo1"] + 0.1
        assert fade["factor_mono_zoo1"] < even["factor_mono_zoo1"]

    def test_ends_that_are_not_asked_are_told(self, figures):
        for other in ("Even", "Jump", *UNREAL):
            assert figures(other)["end_rmse"] < 1e-3
        for other in (*ASTRAY, *ABSENT):
            assert figures(other)["end_rmse"] > 0.1
            assert figures(other)["end_lpd_zoo1"] > 1


@pytest.mark.slow
class TestBetweenNoises:
    """The ends are what the model makes of both noises; judges read what faces they show."""

    def test_the_order_is_the_same_above_what_judges_misread(self, figures):
        found = {
            name: figures(name, (*QUICK, "projection", "path_ends"), "noise")
            for name in ("Even", "Blurred", "CrossFade", "Still", "Swapped")
        }
        even = found["Even"]
        assert even["path_error_image"] < 0.5 and even["end_rmse"] < 1e-3
        assert found["Blurred"]["path_error_image"] > even["path_error_image"] + 0.05
        for other in ("CrossFade", "Still", "Swapped"):
            assert found[other]["path_error_image"] > even["path_error_image"] + 0.5, other
        for other in ("Still", "Swapped"):
            assert found[other]["end_lpd_zoo1"] > 1
