"""Variation: what a method is given, what is refused, and where planted methods come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank

from benchmarks.variation import Variation
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.records import Status
from latentbench.streams import Streams

DATA = FacesDataset(size=SIZE)
METRICS = ("variation_error", "identity_preservation", "draw_diversity")


class Seen(Editor):
    """Keeps what it is given and returns it."""

    paper = "none"

    def vary(self, batch, draws):
        self.batch = batch
        return batch.images[:, None].expand(-1, draws, -1, -1, -1)


def samples(index, data=DATA):
    editor, cpu = Seen(), torch.device("cpu")
    bench = Bench(editor, Blank(), data, Streams(0), Cache(None), cpu, len(index))
    found = Variation(n=4, draws=3).run(Work("images", index, len(index)), bench, {})
    return found, editor.batch


def test_a_method_is_given_the_words_for_the_identity_alone():
    found, given = samples((0, 5))
    words = {f.name: f.words for f in faces.FACTORS}
    for caption, whole in zip(given.prompts, DATA.describe("test", [0, 5]).prompts, strict=True):
        kept = [w for w in whole.split() if any(w in words[name] for name in faces.IDENTITY)]
        assert caption.split() == kept and len(kept) == 10
    assert given.factors is None and given.masks is None
    assert found.prompts == given.prompts


def test_true_photos_have_the_identity_of_the_source_and_attributes_of_their_own():
    photos = samples((0, 5))[0].truths
    assert photos.shape[:2] == (2, 3)
    known = DATA.describe("test", [0, 5]).factors
    others = DATA.describe("calibration", [0, 1, 2, 15, 16, 17]).factors.unflatten(0, (2, 3))
    same = torch.tensor([name in faces.IDENTITY for name in faces.FACTOR_NAMES])
    drawn = DATA.render(torch.where(same, known[:, None], others).flatten(0, 1))
    assert torch.equal(photos.flatten(0, 1), drawn)
    assert torch.equal(photos, samples((5, 0))[0].truths.flip(0))  # whatever the order


class Photographs(FacesDataset):
    """Faces of which nothing is known but a caption."""

    gives = frozenset({"prompts"})
    factor_names = attributes = ()

    def __init__(self):
        super().__init__(size=SIZE)
        self.factor_names = self.attributes = ()


def test_data_that_draw_no_faces_give_no_truth_and_their_captions_as_they_are():
    found, given = samples((0, 5), Photographs())
    assert found.truths is None
    assert given.prompts == DATA.describe("test", [0, 5]).prompts


def test_too_many_draws_are_refused():
    class Few(FacesDataset):
        def size(self, split):
            return 10

    with pytest.raises(BadInput, match=r"n=4 times benchmark.draws=3 needs 12 faces of the split"):
        Variation(n=4, draws=3).check(Few(size=SIZE))
    Variation(n=3, draws=3).check(Few(size=SIZE))


# ---------------------------------------------------------------- planted methods


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, metrics=METRICS, n=8, draws=4):
        given = (f"benchmark.n={n}", f"benchmark.draws={draws}")
        record = run(folder, "variation", f"planted_variation.{method}", metrics, given)
        assert record.main_score == "variation_error_zoo1"
        assert record.status is Status.OK, record.reason
        return record.scores

    return found


@pytest.mark.slow
def test_photos_of_the_person_are_ahead_of_copies_and_of_somebody_else(scores):
    error = {
        name: scores(name, METRICS[:1], 3, 2)["variation_error_zoo1"].value
        for name in ("Photos", "Copies", "OtherPerson")
    }
    assert error["Photos"] < 0.4
    assert min(error["Copies"], error["OtherPerson"]) > error["Photos"] + 0.4


@pytest.mark.slow
class TestOrder:
    @pytest.fixture
    def read(self, scores):
        return lambda name: {k: s.value for k, s in scores(name).items()}

    def test_the_true_photos_are_alone_in_front_and_each_cheat_gains_nothing(self, read):
        error = {
            name: read(name)["variation_error_zoo1"]
            for name in (
                "Photos", "SeenCopies", "FixedPhoto", "OtherPerson", "OnePerson", "Kin", "Timid",
                "BackgroundOnly", "Wild", "BlurredPhotos", "Ghosts", "NoisyCopies", "NoiseAlone",
            )
        }  # fmt: skip
        assert error.pop("Photos") < 0.12
        assert min(error.values()) > 0.25, error
        for name in ("SeenCopies", "FixedPhoto", "OtherPerson"):
            assert error[name] == pytest.approx(1, abs=0.15), name
        assert error["NoisyCopies"] > error["SeenCopies"]
        assert 1.7 < error["NoiseAlone"] < error["OnePerson"] < 2.5
        assert error["Ghosts"] > error["Kin"] > 0.5

    def test_each_part_tells_what_is_wrong(self, read):
        for name in ("SeenCopies", "FixedPhoto", "Timid", "BackgroundOnly"):
            assert read(name)["content_error_zoo1"] < 0.05, name
            assert read(name)["spread_error_zoo1"] > 0.4, name
        for name in ("OtherPerson", "Kin"):
            assert read(name)["content_error_zoo1"] > 0.5, name
            assert read(name)["spread_error_zoo1"] < 0.1, name
        assert read("BlurredPhotos")["content_error_zoo1"] > 0.2
        assert read("Wild")["spread_error_zoo1"] > 0.1  # too much

    def test_diversity_alone_is_won_by_noise(self, read):
        assert read("SeenCopies")["draws_lpd_zoo1"] < 1e-6
        noise, photos = (read(name)["draws_lpd_zoo1"] for name in ("NoiseAlone", "Photos"))
        assert noise > 1.5 * photos

    def test_the_unit_is_the_image_with_all_its_draws(self, scores):
        assert all(score.n == 8 for score in scores("Photos").values())
