"""Inpainting: what a method is given, what is refused, and where planted methods come out."""

from functools import cache

import pytest
import torch
from PIL import Image
from planted_cells import run
from planted_editors import SIZE, Blank

from benchmarks.holes import box, filled, stroke
from benchmarks.inpainting import Inpainting
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.cells.compatibility import Parts
from latentbench.data.edges import edges
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.records import Status
from latentbench.streams import Streams
from latentbench.types import Capability
from methods.editing.blended_latent_diffusion import BlendedLatentDiffusion
from methods.editing.sdedit import SDEdit

METRICS = ("restoration_error", "background", "face_projection_inside", "seam")
HOLES = ("box", "stroke", "eyes", "mouth", "hair", "glasses+", "hat+")
DATA = FacesDataset(size=SIZE)


class Seen(Editor):
    """Keeps what it is given and returns it."""

    paper = "none"

    def edit(self, batch, edit, strengths):
        self.batch, self.asked = batch, edit
        return batch.images[:, None].expand(-1, len(strengths), -1, -1, -1)


def samples(hole, index, data=DATA, seed=0, **settings):
    """Return the samples of one batch, and the method that saw it."""
    editor = Seen()
    cpu = torch.device("cpu")
    bench = Bench(editor, Blank(), data, Streams(seed), Cache(None), cpu, len(index))
    protocol = Inpainting(n=4, holes=(hole,), **settings)
    return protocol.run(Work(hole, index, len(index)), bench, protocol.setup(bench)), editor


# ---------------------------------------------------------------- what is asked


@pytest.mark.parametrize("hole", HOLES)
def test_a_method_is_given_the_words_of_the_whole_image_and_nothing_of_the_hole(hole):
    found, method = samples(hole, (0, 1))
    batch, asked, inside = method.batch, method.asked, found.masks[:, None] > 0
    assert batch.factors is None and batch.masks is None
    assert asked.target_prompts == batch.prompts == found.prompts
    assert torch.equal(asked.masks, found.masks)
    assert 0 < float(found.masks.mean()) < 1
    whole = found.truths[:, 0]
    assert torch.equal(batch.images.where(~inside, whole), whole)  # kept outside
    other = filled(torch.where(inside, -whole, whole), found.masks)
    assert torch.equal(batch.images, other)  # nothing of it inside


def test_an_edit_asks_for_the_counterfactual_with_its_words():
    found, _ = samples("glasses+", (0, 1))
    assert all("bareeyed" not in words.split() for words in found.prompts)
    assert all("glasses" in words.split() for words in found.prompts)
    index = [int(name.split("/")[1]) for name in found.ids]
    answer = DATA.counterfactual("test", index, "glasses", torch.ones(2))
    assert torch.equal(found.truths[:, 0], answer)


def test_the_whole_image_s_edges_are_given_where_that_is_asked():
    found, method = samples("glasses+", (0, 1), give_references="edges")
    assert torch.equal(method.asked.references, 2 * edges(found.truths[:, 0]) - 1)
    assert samples("glasses+", (0, 1))[1].asked.references is None
    with pytest.raises(BadInput, match=r"give_references=edges shows what belongs.*null"):
        Inpainting(n=4, holes=("edit",), give_references="edges").check(Marked(size=SIZE))


def test_random_holes_depend_on_seed_and_image_alone():
    first, second = samples("box", (0, 1))[0].masks, samples("box", (1, 0))[0].masks
    assert torch.equal(first, second.flip(0))
    assert not torch.equal(first, samples("box", (0, 1), seed=1)[0].masks)


@pytest.mark.parametrize("draw", [box, stroke])
def test_random_holes_are_neither_empty_nor_all(draw):
    shares = [float(draw(64, torch.Generator().manual_seed(k)).mean()) for k in range(50)]
    assert 0.005 < min(shares) and max(shares) <= 0.26
    assert len(set(shares)) > 25


def test_a_filling_continues_the_surroundings_and_a_hole_of_everything_is_grey():
    ramp = torch.linspace(-1, 1, 33).expand(1, 3, 33, 33)
    masks = torch.zeros(1, 33, 33)
    masks[:, 10:20, 10:20] = 1
    inside = filled(ramp, masks)[..., 10:20, 10:20]
    assert float((inside - ramp[..., 10:20, 10:20]).abs().mean()) < 0.1
    assert float(inside[..., 0].mean()) < float(inside[..., -1].mean())
    assert float(filled(ramp, torch.ones_like(masks)).abs().max()) == 0


class Marked(FacesDataset):
    """Says where an image is to change, and not what would be there."""

    parts = ("edit",)
    gives = FacesDataset.gives - {Capability.EDITS}

    def batch(self, split, indices):
        batch = super().batch(split, indices)
        return type(batch)(
            batch.ids, batch.images, batch.prompts, None, {"edit": batch.masks["hat"]}
        )


def test_where_the_data_say_only_where_there_is_no_truth_and_all_else_is_the_same():
    found, method = samples("edit", (0, 1), Marked(size=SIZE))
    assert found.truths is None
    assert torch.equal(method.asked.masks, found.masks)
    outside = found.masks[:, None] == 0
    images = DATA.batch("test", [0, 1]).images
    assert torch.equal(method.batch.images.where(outside, images), images)


class Bald(FacesDataset):
    """Has no hair on every second image."""

    def batch(self, split, indices):
        batch = super().batch(split, indices)
        shown = torch.tensor([k % 2 for k in indices])[:, None, None]
        masks = {"hair": batch.masks["hair"] * shown}
        return type(batch)(batch.ids, batch.images, batch.prompts, batch.factors, masks)


def test_images_that_do_not_show_the_part_are_passed_over():
    found, _ = samples("hair", (0, 1, 2), Bald(size=SIZE))
    assert found.ids == ("test/1", "test/3", "test/5")

    class Few(Bald):
        def size(self, split):
            return 7

    with pytest.raises(
        BadInput, match=r"asks for 4 images that show 'hair', the split 'test' has 3"
    ):
        samples("hair", (0,), Few(size=SIZE))


# ---------------------------------------------------------------- refusals


def test_holes_are_checked_before_any_work():
    for hole, said in (
        ("nos", r"unknown hole 'nos'; did you mean nose\?"),
        ("hatt+", "unknown attribute 'hatt'"),
        ("edit", "unknown hole 'edit'"),
    ):
        with pytest.raises(BadInput, match=said):
            Inpainting(n=1, holes=(hole,)).check(DATA)
    with pytest.raises(BadInput, match=r"must hold 'edit' alone.* got edit, box; run two cells"):
        Inpainting(n=1, holes=("edit", "box")).check(Marked(size=SIZE))
    Inpainting(n=1, holes=("edit",)).check(Marked(size=SIZE))


def test_what_data_must_give_is_what_the_holes_need():
    assert Inpainting(holes=("box", "stroke")).needs == frozenset()
    assert Inpainting(holes=("nose",)).needs == {Capability.PART_MASKS}
    both = {Capability.LABELS, Capability.COUNTERFACTUALS}
    assert Inpainting(holes=("hat+",)).needs == both


def test_a_method_that_reads_no_mask_is_skipped_with_the_reason():
    model = option("model", "faces_ldm").cls
    reason = {
        method: Parts(method, {}, model, DATA, Inpainting()).misfit()
        for method in (SDEdit, BlendedLatentDiffusion)
    }
    assert reason[BlendedLatentDiffusion] is None
    assert reason[SDEdit] == "SDEdit takes no notice of edit_masks, by which Inpainting asks"


# ---------------------------------------------------------------- planted methods


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, metrics=METRICS, *settings):
        record = run(folder, "inpainting", f"planted_inpainting.{method}", metrics, settings)
        assert record.main_score == "restoration_error_image"
        assert record.status is Status.OK, record.reason
        return record.scores

    return found


QUICK = ("restoration_error",), "benchmark.n=2", "benchmark.holes=[box]"


def test_the_true_image_is_0_and_the_hole_as_it_was_is_1(scores):
    error = {
        name: scores(name, *QUICK)["restoration_error_image"].value
        for name in ("TrueImage", "Idle", "OtherFaceEverywhere")
    }
    assert error["TrueImage"] < 1e-3
    assert error["Idle"] == pytest.approx(1, abs=0.01)
    assert error["OtherFaceEverywhere"] > 1.5


def test_a_hole_that_is_returned_unchanged_is_refused(tmp_path):
    record = run(tmp_path, "inpainting", "planted_inpainting.Copy", QUICK[0], QUICK[1:])
    assert record.status is Status.FAILED and "NoEffect" in record.reason


def test_a_folder_with_masks_is_scored_outside_them_and_has_no_main_score(tmp_path):
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    rows = ["file,split,prompt"]
    for k, image in enumerate(DATA.batch("test", range(3)).images):
        pixels = ((image.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
        Image.fromarray(pixels).save(photos / f"{k}.png")
        mask = torch.zeros(SIZE, SIZE, dtype=torch.uint8)
        mask[:, 10:18] = 255
        Image.fromarray(mask.numpy()).save(masks / f"{k}.png")
        rows.append(f"{k}.png,test,a face")
    (photos / "labels.csv").write_text("\n".join(rows))
    record = run(
        tmp_path / "results", "inpainting", "planted_inpainting.Idle",
        ("background", "seam", "caption_similarity", "caption_direction"),
        (
            "benchmark.n=3", "benchmark.holes=[edit]", f"dataset.path={photos}",
            f"dataset.masks={masks}", f"dataset.size={SIZE}",
        ),
        dataset="folder",
    )  # fmt: skip
    assert record.status is Status.OK, record.reason
    assert record.scores["bg_psnr"].value == 100 and record.scores["bg_psnr"].n == 3
    assert record.scores["seam"].n == 3 and "true images" not in record.scores["seam"].note
    assert record.main_score not in record.scores
    for name in ("caption_similarity", "caption_direction"):
        assert "words of faces alone and not 'a'" in record.switched_off[name]


@pytest.mark.slow
class TestOrder:
    @pytest.fixture
    def read(self, scores):
        return lambda name: {k: s.value for k, s in scores(name, METRICS, "benchmark.n=8").items()}

    def test_the_truth_is_alone_in_front_and_what_knows_nothing_gains_nothing(self, read):
        error = {
            name: read(name)["restoration_error_image"]
            for name in (
                "TrueImage", "Idle", "InsideWords", "OtherFace", "OtherFaceEverywhere", "Blurry",
                "BlurredAll", "Noise", "Grey", "Tinted", "Repainted", "MeanFace",
            )
        }  # fmt: skip
        assert error.pop("TrueImage") < 1e-3
        assert min(error.values()) > 0.3, error
        assert error["Idle"] == pytest.approx(1, abs=0.01)
        assert 0.5 < error["InsideWords"] < 0.85
        for name in ("OtherFace", "Noise", "Grey", "Repainted", "MeanFace"):
            assert error[name] > 1.05, name
        assert error["OtherFaceEverywhere"] == max(error.values())

    @pytest.mark.parametrize("hole", HOLES)
    def test_each_hole_tells_the_truth_from_what_knows_nothing(self, read, hole):
        figure = f"restoration_error_image/{hole}"
        words, other = read("InsideWords")[figure], read("OtherFace")[figure]
        assert words < 0.85 and other > 0.95

    def test_each_companion_catches_what_it_is_for(self, read):
        true = read("TrueImage")
        assert true["bg_psnr"] == 100
        for name in ("BlurredAll", "Repainted", "OtherFaceEverywhere"):
            assert read(name)["bg_psnr"] < 30, name
        for name in ("OtherFace", "Noise", "Grey", "MeanFace", "Idle", "Blurry"):
            assert read(name)["projection_inside_zoo1"] > 2 * true["projection_inside_zoo1"], name
        for name in ("OtherFace", "Noise", "Grey", "Tinted", "MeanFace"):
            assert read(name)["seam"] > true["seam"] + 0.04, name

    def test_the_unit_is_the_image_over_all_its_holes(self, scores):
        all_holes = scores("InsideWords", METRICS, "benchmark.n=8")
        assert all_holes["restoration_error_image/box"].n == 8
        # eight images for five holes, and those that lack glasses or a hat
        assert 8 <= all_holes["restoration_error_image"].n < 24
