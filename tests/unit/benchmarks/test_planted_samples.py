"""Reconstruction and generation put planted methods where they belong, through the real runner."""

from functools import cache

import pytest
from planted_cells import run

from latentbench.records import Status

SETS = ("kernel", "kernel_zoo2", "prdc", "vendi", "memorisation")
SMALL = tuple(f"metric.{name}.reference_n=256" for name in SETS if name != "vendi")
BEHIND = ("BlurredFaces", "Smilers", "OneFace")


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Return a function from benchmark, planted method, metrics and settings to the figures."""
    folder = tmp_path_factory.mktemp("samples")

    @cache
    def found(benchmark, method, metrics, *settings):
        record = run(folder, benchmark, f"planted_samples.{method}", metrics, settings)
        assert record.status is Status.OK, record.reason
        return {name: score.value for name, score in record.scores.items()}

    return found


def test_what_a_reconstruction_loses_counts_by_how_much_it_is(figures):
    same, blurred, other = (
        figures("reconstruction", name, ("psnr",), "benchmark.n=4")["psnr"]
        for name in ("SameFace", "BlurredFace", "NextFace")
    )
    assert same == 100 > blurred > other + 10


@pytest.mark.slow
class TestReconstruction:
    @pytest.fixture
    def found(self, figures):
        metrics = ("psnr", "perceptual", "identity_preservation")
        return lambda name: figures("reconstruction", name, metrics, "benchmark.n=8")

    def test_by_pixels_what_is_changed_a_little_is_ahead_of_what_is_not_the_image(self, found):
        glasses = found("OtherGlasses")["psnr"]
        assert found("BlurredFace")["psnr"] > glasses
        assert glasses > max(found(name)["psnr"] for name in ("NextFace", "Grey")) + 10

    def test_a_blur_keeps_the_person_and_another_face_does_not(self, found):
        for name in ("SameFace", "BlurredFace", "OtherGlasses"):
            assert found(name)["id_zoo1"] > 0.95, name
        for name in ("NextFace", "Grey"):
            assert found(name)["id_zoo1"] < 0.3, name

    def test_what_moves_or_mirrors_the_image_keeps_the_person_and_is_behind(self, found):
        """The embedding hardly feels either; pixels and the learned distance do."""
        best = found("LowContrast")
        for name in ("OnePixelOff", "Mirrored"):
            assert found(name)["psnr"] < best["psnr"] - 5 and found(name)["id_zoo1"] > 0.95
            assert found(name)["lpd_zoo1"] > 2 * best["lpd_zoo1"], name
        assert found("MeanFace")["psnr"] < found("Mirrored")["psnr"]
        assert found("MeanFace")["lpd_zoo1"] > 2 and found("MeanFace")["id_zoo1"] < 0.3

    def test_the_learned_distance_orders_as_the_eye_does(self, found):
        names = ("SameFace", "BlurredFace", "OtherGlasses", "NextFace", "Grey")
        lost = [found(name)["lpd_zoo1"] for name in names]
        assert lost[0] < 1e-6 and lost == sorted(lost) and lost[3] > 10 * lost[2]


@pytest.mark.slow
class TestGeneration:
    @pytest.fixture
    def found(self, figures):
        small = ("benchmark.n=64", *SMALL, "metric.memorisation.training_n=256")
        return lambda name: figures("generation", name, SETS, *small)

    def test_new_faces_are_in_front_of_what_is_blurred_or_lacks_modes(self, found):
        new = found("NewFaces")
        for figure in ("kd_zoo1", "kd_zoo2"):
            lost = [found(name)[figure] for name in BEHIND]
            assert new[figure] < lost[0] < lost[1] < lost[2], figure

    def test_ghosts_middling_faces_and_compression_are_behind_by_both_judges(self, found):
        """Density and coverage rank the first two above new faces: no verdict is read off them."""
        new = found("NewFaces")
        for name in ("Ghosts", "Middling", "Compressed"):
            assert found(name)["kd_zoo1"] > new["kd_zoo1"] + 15, name
            assert found(name)["kd_zoo2"] > new["kd_zoo2"] + 0.05, name
            assert found(name)["recall_zoo1"] < new["recall_zoo1"] - 0.1, name
        for name in ("Ghosts", "Middling"):
            assert found(name)["density_zoo1"] > 2 * new["density_zoo1"], name
            assert found(name)["coverage_zoo1"] > new["coverage_zoo1"], name

    def test_ten_training_images_are_behind_and_told_as_copies(self, found):
        ten, new = found("TenFaces"), found("NewFaces")
        assert ten["kd_zoo1"] > new["kd_zoo1"] + 15 and ten["recall_zoo1"] == 0
        assert ten["authpct_zoo1"] == 0 and ten["ct_zoo1"] < -3

    def test_one_face_has_precision_and_covers_nothing(self, found):
        one = found("OneFace")
        assert one["precision_zoo1"] == 1
        assert one["recall_zoo1"] == 0 and one["coverage_zoo1"] < 0.05
        assert one["vendi_zoo1"] == pytest.approx(1, abs=1e-3)

    def test_copies_are_as_good_as_new_faces_but_for_memorisation(self, found):
        copies, new = found("Copies"), found("NewFaces")
        assert copies["kd_zoo1"] < new["kd_zoo1"] + 10
        assert copies["authpct_zoo1"] == 0 and copies["ct_zoo1"] < -3
        assert new["authpct_zoo1"] > 40 and abs(new["ct_zoo1"]) < 3
