"""Scorers for methods: the embedded pair, a published CLIP, and no judge."""

import shutil
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from latentbench import weights
from latentbench.cells.catalogue import options
from latentbench.data import faces
from latentbench.errors import BadInput, MissingWeights
from latentbench.models.scorer import PublishedScorer
from latentbench.zoo.judges import JUDGES
from latentbench.zoo.scorers import EmbeddedScorer
from latentbench.zoo.text_image import JUDGING_PAIRS

TOWER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
TOWER |= {"num_attention_heads": 2}


@pytest.fixture(scope="module")
def embedded():
    return EmbeddedScorer()


@pytest.fixture(scope="module")
def published_folder(tmp_path_factory):
    """A tiny CLIP with random weights, laid out as on the hub; crops the middle as CLIP does."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=TOWER | {"vocab_size": 512, "max_position_embeddings": 12},
        vision_config=TOWER | {"image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 20}, crop_size=16).save_pretrained(folder)
    for file in (weights.folder("faces_ldm") / "tokenizer").iterdir():
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def published(published_folder):
    return PublishedScorer(path=str(published_folder))


@pytest.fixture(params=["embedded", "published"])
def scorer(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def images():
    return faces.render(faces.sample_factors("test", torch.arange(4)))


def test_both_spaces_are_one(scorer, images):
    seen, told = scorer.image(images), scorer.text(["hat", "smiling hat", "hat", ""])
    assert seen.shape == told.shape and seen.dtype == told.dtype == torch.float32
    for found in (seen, told):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(told[0], told[2])
    fits = scorer.similarity(images, ["hat", "smiling hat", "hat", ""])
    torch.testing.assert_close(fits, (seen * told).sum(1))


def test_rows_do_not_depend_on_their_batch(scorer, images):
    torch.testing.assert_close(scorer.image(images)[2:3], scorer.image(images[2:3]))


def test_each_image_has_its_own_gradient_and_all_are_counted(scorer, images):
    before = (scorer.evaluations.forward, scorer.evaluations.backward)
    with torch.enable_grad():
        moved = images.clone().requires_grad_()
        scorer.similarity(moved, ["hat"] * 4)[1].backward()
    size = moved.grad.flatten(1).abs().amax(1)
    assert size[1] > 0 and size[[0, 2, 3]].max() == 0
    assert scorer.evaluations.forward == before[0] + 4
    assert scorer.evaluations.backward == before[1] + 4


def test_the_embedded_one_knows_a_hat(embedded):
    factors = faces.sample_factors("test", torch.arange(3_000, 3_032))
    bare, hatted = (faces.render(faces.with_factor(factors, "hat", v)) for v in (0.0, 1.0))
    gain = embedded.similarity(hatted, ["hat"] * 32) - embedded.similarity(bare, ["hat"] * 32)
    assert float((gain > 0).float().mean()) > 0.95


def test_following_its_gradient_raises_the_fit(embedded, images):
    with torch.enable_grad():
        moved = images.clone().requires_grad_()
        embedded.similarity(moved, ["hat"] * 4).sum().backward()
    step = images + 0.01 * moved.grad.sign()
    rise = embedded.similarity(step, ["hat"] * 4) - embedded.similarity(images, ["hat"] * 4)
    assert float(rise.min()) > 0


def test_published_images_are_prepared_as_their_own_processor_does(published, published_folder):
    """To the 8 bits that the processor's resizing rounds to."""
    images = faces.render(faces.sample_factors("test", torch.arange(2)))
    own = CLIPImageProcessor.from_pretrained(published_folder)
    bytes_ = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    expected = own([Image.fromarray(each) for each in bytes_], return_tensors="pt").pixel_values
    found = published.preparation(images)
    assert found.shape == expected.shape == (2, 3, 16, 16)
    assert float((found - expected).abs().max()) < 4 / 255 / min(published.preparation.spread)


def test_published_captions_are_cut_and_padded(published):
    long = " ".join(faces.vocabulary())
    assert published.text([long, "hat"]).shape == (2, 8)
    torch.testing.assert_close(published.text([long, "hat"])[1], published.text(["hat"])[0])


def test_fingerprints_know_weights_and_settings(embedded, published, published_folder, tmp_path):
    assert published.fingerprint() == PublishedScorer(path=str(published_folder)).fingerprint()
    half = PublishedScorer(path=str(published_folder), dtype="bfloat16")
    other = shutil.copytree(published_folder, tmp_path / "other")
    network = CLIPModel.from_pretrained(other)
    network.visual_projection.weight.data[0, 0] += 1
    network.save_pretrained(other)
    moved = PublishedScorer(path=str(other))
    found = {each.fingerprint() for each in (embedded, published, half, moved)}
    assert len(found) == 4


@pytest.mark.parametrize("name", [*JUDGES, *JUDGING_PAIRS])
def test_judges_are_refused(name):
    with pytest.raises(BadInput, match=f"'{name}' is a judge.*use 'clip1'"):
        EmbeddedScorer(path=name)


def test_wrong_names_and_captions_are_refused(embedded, images, tmp_path):
    with pytest.raises(BadInput, match="did you mean clip1"):
        EmbeddedScorer(path="clip3")
    with pytest.raises(MissingWeights, match="hf download"):
        PublishedScorer(path=str(tmp_path))
    with pytest.raises(BadInput, match="1 captions for 4 images"):
        embedded.similarity(images, ["hat"])


def test_no_metric_looks_through_what_methods_look_through():
    looked = {
        v for o in options("metric").values() for v in o.config.values() if isinstance(v, str)
    }
    lent = {o.config["path"] for g in ("scorer", "classifier") for o in options(g).values()}
    assert "clip1" in lent and "clip2" in looked
    assert not lent & looked
