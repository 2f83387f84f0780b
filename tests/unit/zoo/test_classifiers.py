"""Classifiers for methods: a published one, the embedded one, and no judge."""

from typing import Any

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from latentbench.data import faces
from latentbench.errors import BadInput, MissingWeights
from latentbench.models.classifier import PublishedClassifier, against_the_others
from latentbench.zoo.classifiers import EmbeddedClassifier
from latentbench.zoo.judges import JUDGES

LABELS = {0: "hat", 1: "bareheaded", 2: "hood"}


def save(folder, **changes):
    """Write a tiny classifier with random weights, laid out as on the hub."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    settings |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8, "id2label": LABELS}
    ViTForImageClassification(ViTConfig(**settings | changes)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def exclusive(tmp_path_factory):
    return PublishedClassifier(path=save(tmp_path_factory.mktemp("exclusive")))


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("separate")
    return PublishedClassifier(path=save(folder, problem_type="multi_label_classification"))


@pytest.fixture(scope="module")
def images():
    return faces.render(faces.sample_factors("test", torch.arange(4)))


def test_labels_that_exclude_each_other_are_a_softmax(exclusive, images):
    logits = exclusive.network(exclusive.preparation(images)).logits
    torch.testing.assert_close(exclusive.probabilities(images), logits.softmax(1))
    torch.testing.assert_close(exclusive.probabilities(images).sum(1), torch.ones(4))


def test_labels_that_do_not_are_sigmoids(separate, images):
    logits = separate.network(separate.preparation(images)).logits
    torch.testing.assert_close(separate.probabilities(images), logits.sigmoid())


def test_labels_have_places(exclusive):
    assert exclusive.labels == ("hat", "bareheaded", "hood") and exclusive.column("hood") == 2
    with pytest.raises(BadInput, match="did you mean hood"):
        exclusive.column("hod")


def test_each_image_has_its_own_gradient_and_all_are_counted(exclusive, images):
    before = (exclusive.evaluations.forward, exclusive.evaluations.backward)
    with torch.enable_grad():
        moved = images.clone().requires_grad_()
        exclusive.log_odds(moved)[1, 0].backward()
    size = moved.grad.flatten(1).abs().amax(1)
    assert size[1] > 0 and size[[0, 2, 3]].max() == 0
    assert exclusive.evaluations.forward == before[0] + 4
    assert exclusive.evaluations.backward == before[1] + 4


def test_log_odds_are_finite_where_a_label_is_certain():
    found = against_the_others(torch.tensor([[200.0, -200.0, -300.0]]))
    torch.testing.assert_close(found, torch.tensor([[400.0, -400.0, -500.0]]))


def test_fingerprints_know_weights_and_form(exclusive, separate):
    assert exclusive.fingerprint() != separate.fingerprint()
    assert exclusive.fingerprint() == PublishedClassifier(path=exclusive.name).fingerprint()


@pytest.mark.parametrize("name", JUDGES)
def test_judges_are_refused(name):
    with pytest.raises(BadInput, match=f"'{name}' is a judge.*'attr1' as a classifier"):
        EmbeddedClassifier(path=name)


def test_what_cannot_classify_is_refused(tmp_path):
    with pytest.raises(BadInput, match="unknown embedded classifier 'clip1'"):
        EmbeddedClassifier(path="clip1")
    with pytest.raises(MissingWeights, match="hf download"):
        PublishedClassifier(path=str(tmp_path / "absent"))
    with pytest.raises(BadInput, match=r"one label.*needs two"):
        PublishedClassifier(path=save(tmp_path, id2label={0: "hat"}))
