"""Translation: what a method is given, what is refused, and where planted methods come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank
from torchvision.utils import save_image

from benchmarks.translation import Translation
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.cells.compatibility import Parts
from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.data.folder import Folder
from latentbench.data.two_folders import TwoFolders
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.records import Status
from latentbench.streams import Streams

DATA = FacesDataset(size=SIZE)
METRICS = ("translation_error",)


class Seen(Editor):
    """Keeps what it is given and returns it."""

    paper = "none"

    def edit(self, batch, edit, strengths):
        self.batch, self.asked, self.strengths = batch, edit, strengths
        return batch.images[:, None].expand(-1, len(strengths), -1, -1, -1)


def samples(index, data=DATA):
    editor, cpu = Seen(), torch.device("cpu")
    bench = Bench(editor, Blank(), data, Streams(0), Cache(None), cpu, len(index))
    found = Translation(n=4).run(Work("images", index, len(index)), bench, {})
    return found, editor


def test_the_truth_is_the_drawing_of_the_same_face_and_is_not_given():
    found, seen = samples((0, 5))
    factors = DATA.describe("test", [0, 5]).factors
    assert torch.equal(found.truths[:, 0], faces.render(factors, SIZE, "lines"))
    assert torch.equal(found.sources, faces.render(factors, SIZE))
    assert seen.batch.factors is None and seen.batch.masks is None and seen.asked.masks is None
    assert seen.asked.target_prompts == seen.batch.prompts == DATA.describe("test", [0, 5]).prompts
    assert seen.strengths.tolist() == [0.0, 1.0] and found.outputs.shape[1] == 1


def misfit(method, data=DATA, **settings):
    one = option("method", method)
    model = option("model", "faces_ddpm").cls
    return Parts(one.cls, {**one.config, **settings}, model, data, Translation()).misfit()


def test_methods_without_a_second_model_are_skipped():
    assert misfit("cycle_diffusion", target_model="faces_lines") is None
    assert misfit("dual_bridges") is None and misfit("sdedit_translation") is None
    assert "requires the space text" in misfit("cycle_diffusion")
    assert "takes no notice of second_domain or second_model" in misfit("noise_direction")


def test_methods_that_learn_from_images_of_the_second_domain_are_not_skipped():
    one, model = option("method", "domain_expansion"), option("model", "faces_gan").cls
    for domains, fits in (("images", True), ("bareheaded to hat", False)):
        settings = {**one.config, "domains": domains}
        assert (Parts(one.cls, settings, model, DATA, Translation()).misfit() is None) == fits


@pytest.fixture
def folders(tmp_path):
    """Folders of photos and of fewer drawings, none of the same face, with tables of splits."""
    for name, style, count in (("photos", "photo", 6), ("drawings", "lines", 4)):
        (tmp_path / name).mkdir()
        index = torch.arange(count) + (100 if style == "lines" else 0)
        for k, image in enumerate(faces.render(faces.sample_factors("test", index), SIZE, style)):
            save_image(image / 2 + 0.5, tmp_path / name / f"{k}.png")
        rows = [f"{k}.png,test" for k in range(count)]
        (tmp_path / name / "table.csv").write_text("\n".join(["file,split", *rows]))
    return tmp_path


def test_data_of_ones_own_have_no_truth(folders):
    data = TwoFolders(path=str(folders / "photos"), target=str(folders / "drawings"), size=SIZE)
    found, _ = samples((0, 3), data)
    assert found.truths is None
    assert (data.size("test"), data.second_size("test")) == (6, 4)
    drawn = faces.render(faces.sample_factors("test", torch.tensor([102])), SIZE, "lines")
    assert float((data.second_domain("test", [2]) - drawn).abs().max()) < 0.01
    assert "needs second_domain" in misfit("dual_bridges", Folder(path=str(folders / "photos")))


def test_other_drawings_are_other_data(folders):
    places = {"path": str(folders / "photos"), "target": str(folders / "drawings")}
    before = TwoFolders(**places, size=SIZE).fingerprint()
    save_image(torch.zeros(3, SIZE, SIZE), folders / "drawings" / "0.png")
    assert TwoFolders(**places, size=SIZE).fingerprint() != before


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("photos", "photos"),
        ("photos", "linked"),
        ("photos", "photos/below"),
        (".", "drawings"),
    ],
)
def test_folders_that_share_images_are_refused(folders, path, target):
    (folders / "photos" / "below").mkdir()
    (folders / "linked").symlink_to(folders / "photos")
    with pytest.raises(BadInput, match="share images"):
        TwoFolders(path=str(folders / path), target=str(folders / target), size=SIZE)


@pytest.mark.parametrize("how", ["copied", "linked"])
def test_an_image_that_is_in_both_folders_is_refused(folders, how):
    """A source that is given back would be in the domain to translate to."""
    source, target = folders / "photos" / "2.png", folders / "drawings" / "also.png"
    (folders / "drawings" / "table.csv").unlink()
    target.write_bytes(source.read_bytes()) if how == "copied" else target.symlink_to(source)
    with pytest.raises(BadInput, match=r"1 of 5 images below .*\n  also.png: it is 2.png of the"):
        TwoFolders(
            path=str(folders / "photos"), target=str(folders / "drawings"), size=SIZE, links=True
        )


@pytest.mark.parametrize("target", ["", "~nobody_of_this_name/x", "nowhere", "s3://bucket/x"])
def test_what_is_wrong_with_the_target_is_said_of_the_target(folders, target):
    with pytest.raises(BadInput, match=r"dataset\.target"):
        TwoFolders(path=str(folders / "photos"), target=target, size=SIZE)


def test_a_skipped_cell_names_the_data_that_give_a_second_domain():
    assert misfit("dual_bridges", TwoFolders) is None


# ---------------------------------------------------------------- planted methods


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def scores(place):
    """Return a function from a planted method to the scores of its cell."""

    @cache
    def found(method, metrics=METRICS, n=16):
        planted = f"planted_translation.{method}"
        record = run(place, "translation", planted, metrics, (f"benchmark.n={n}",))
        assert record.status is Status.OK, record.reason
        assert record.main_score == "translation_error_zoo1"
        return record.scores

    return found


@pytest.mark.slow
def test_the_true_drawing_is_at_0_the_photo_at_1_and_another_drawing_no_better(scores):
    error = {
        name: scores(name, METRICS, 4)["translation_error_zoo1"].value
        for name in ("TrueDrawing", "SeenSource", "OtherDrawing")
    }
    assert error["TrueDrawing"] == pytest.approx(0, abs=1e-3)
    assert error["SeenSource"] == pytest.approx(1, abs=0.05)
    assert error["OtherDrawing"] > 1


def test_the_photo_unchanged_is_refused(place):
    record = run(place, "translation", "planted_translation.Source", METRICS, ("benchmark.n=2",))
    assert record.status is Status.FAILED and "NoEffect" in record.reason


def test_a_users_folders_have_no_main_score_and_the_distance_to_their_own_domain(folders):
    given = (
        f"dataset.path={folders / 'photos'}", f"dataset.target={folders / 'drawings'}",
        "benchmark.n=6",
    )  # fmt: skip
    metrics = ("kernel_domain", "translation_error")
    record = run(
        folders / "results", "translation", "planted_translation.SeenSource", metrics, given,
        dataset="two_folders",
    )  # fmt: skip
    assert record.status is Status.OK, record.reason
    assert record.scores["kd_domain_zoo1"].value > 0
    assert "translation_error_zoo1" not in record.scores


@pytest.mark.slow
class TestOrder:
    @pytest.fixture
    def read(self, scores):
        metrics = ("translation_error", "kernel_domain")
        return lambda name: {k: s.value for k, s in scores(name, metrics).items()}

    def test_the_true_drawing_is_alone_in_front_and_each_cheat_gains_nothing(self, read):
        cheats = (
            "SeenSource", "OtherDrawing", "OtherPhoto", "OneDrawing", "MeanDrawing", "Ghost",
            "Grey", "Paper", "NoiseAlone",
        )  # fmt: skip
        error = {name: read(name)["translation_error_zoo1"] for name in cheats}
        assert read("TrueDrawing")["translation_error_zoo1"] == pytest.approx(0, abs=1e-3)
        assert min(error.values()) > 0.97, error
        for name in ("Blurred", "Noisy", "OtherIdentity", "OtherAttributes"):
            assert 0.25 < read(name)["translation_error_zoo1"] < 1.2, name

    def test_each_part_tells_what_is_wrong(self, read):
        for name in ("OtherDrawing", "OneDrawing"):
            assert read(name)["translated_content_error_zoo1"] > 0.9, name
            assert read(name)["translated_style_error_zoo1"] < 0.4, name
        found = read("SeenSource")
        assert found["translated_content_error_zoo1"] < 0.05
        assert found["translated_style_error_zoo1"] == pytest.approx(1, abs=0.05)

    def test_the_domain_alone_is_won_by_drawings_of_anybody(self, read):
        distance = {n: read(n)["kd_domain_zoo1"] for n in ("OtherDrawing", "SeenSource", "Blurred")}
        assert distance["OtherDrawing"] < distance["Blurred"] < distance["SeenSource"]
