"""Text-image pairs: towers, shipped weights, the recipe's loss and figures."""

import json
from dataclasses import replace

import pytest
import torch

from latentbench import weights
from latentbench.data import faces
from latentbench.errors import BadInput
from latentbench.zoo import __main__ as command
from latentbench.zoo import training
from latentbench.zoo.recipes import pairs as recipe
from latentbench.zoo.text_image import PAIRS, ConvolutionalPair, MixerPair, load_pair

WORDS = ("hat", "bareheaded", "smiling")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=PAIRS)
def shipped(request):
    return load_pair(request.param)


@pytest.fixture(scope="module")
def tested():
    factors = faces.sample_factors("test", torch.arange(3_000, 3_064))
    return faces.render(factors), faces.caption(factors)


@pytest.fixture(params=[ConvolutionalPair, MixerPair])
def untrained(request):
    torch.manual_seed(0)
    return request.param("pair", WORDS).eval()


# ---------------------------------------------------------------- towers


def test_embeddings_have_unit_length(untrained):
    images = torch.zeros(2, 3, 32, 32)
    for found in (untrained.image(images), untrained.text(["hat smiling", ""])):
        torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_a_caption_is_a_set_of_words(untrained):
    a, b, c = untrained.text(["hat smiling", "smiling hat", "hat"])
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert float((a - c).abs().max()) > 1e-3


def test_a_caption_does_not_depend_on_the_length_of_others(untrained):
    alone, padded = untrained.text(["hat"])[0], untrained.text(["hat", "hat smiling"])[0]
    torch.testing.assert_close(alone, padded, rtol=1e-4, atol=1e-5)


def test_no_captions_have_no_rows(untrained):
    assert untrained.tokens([]).shape == (0, 1) and untrained.text([]).shape == (0, 64)


def test_unknown_words_and_missing_captions_are_refused(untrained):
    with pytest.raises(BadInput, match=r"unknown word of pair 'smilling'.*smiling"):
        untrained.text(["hat smilling"])
    with pytest.raises(BadInput, match="1 captions for 2 images"):
        untrained.similarity(torch.zeros(2, 3, 32, 32), ["hat"])


def test_the_image_tower_is_differentiable(untrained):
    with torch.enable_grad():
        images = torch.zeros(2, 3, 32, 32).requires_grad_()
        untrained.similarity(images, ["hat", "smiling"]).sum().backward()
    assert float(images.grad.flatten(1).abs().amax(1).min()) > 0


# ---------------------------------------------------------------- shipped


def test_own_captions_are_found_among_others(shipped, tested):
    images, captions = tested
    found = recipe.recall_at_1(shipped.image(images), shipped.text(captions))
    assert min(found) > 0.9


def test_a_word_moves_the_text_where_its_images_are(shipped):
    """Text and image move alike when a hat is put on: what directional similarity reads."""
    factors = faces.sample_factors("test", torch.arange(3_000, 3_064))
    ends = [faces.with_factor(factors, "hat", v) for v in (0.0, 1.0)]
    bare, hatted = (shipped.image(faces.render(f)) for f in ends)
    plain, asked = (shipped.text(faces.caption(f)) for f in ends)
    cosine = torch.nn.functional.cosine_similarity(hatted - bare, asked - plain)
    assert float(cosine.mean()) > 0.5
    other = faces.caption(faces.with_factor(ends[0], "smile", 1.0))
    away = torch.nn.functional.cosine_similarity(hatted - bare, shipped.text(other) - plain)
    assert float(away.mean()) < float(cosine.mean()) - 0.3


def test_single_words_tell_images_apart(shipped, tested):
    images, _ = tested
    hat = faces.sample_factors("test", torch.arange(3_000, 3_064))[:, faces.factor_index("hat")]
    scores = shipped.image(images) @ shipped.text(["bareheaded", "hat"]).T
    sure = (hat - 0.5).abs() > 0.25
    right = (scores.argmax(1) == (hat > 0.5).long())[sure]
    assert float(right.float().mean()) > 0.9


def test_the_pairs_share_no_face_seed_or_tower():
    first, second = (recipe.PLANS[name] for name in PAIRS)
    assert first.seed != second.seed and recipe.SPLITS["clip1"] != recipe.SPLITS["clip2"]
    towers = [{type(m) for m in recipe.build(name).vision.modules()} for name in PAIRS]
    assert not {t for t in towers[0] & towers[1] if t.__module__.startswith("latentbench")}


# ---------------------------------------------------------------- recipe


def test_short_captions_lose_words_and_gain_none():
    ids = torch.arange(1, 21).repeat(256, 1)
    short = recipe.shortened_captions(ids, torch.Generator().manual_seed(0))
    assert bool(((short == ids) | (short == 0)).all())
    kept = (short > 0).sum(1)
    assert int(kept.min()) <= 1 and int(kept.max()) >= 19


def test_recall_best_and_worst():
    points = torch.eye(8)
    assert recipe.recall_at_1(points, points) == (1.0, 1.0)
    assert recipe.recall_at_1(points, points.roll(1, 0)) == (0.0, 0.0)


def test_the_recipe_trains_saves_and_verifies(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS_ROOT", tmp_path / "weights")
    small = {"architecture": "MixerPair", "channels": [8, 8, 8], "width": 8}
    monkeypatch.setitem(recipe.CONFIGS, "clip2", small)
    monkeypatch.setitem(recipe.PLANS, "clip2", replace(recipe.PLANS["clip2"], batch=4))
    folder = command.train("clip2", 2, CPU, tmp_path / "checkpoints")
    weights.verify("clip2")
    assert json.loads((folder / "card.json").read_text())["training"]["pair"]["split"] == "judge"
    pair = load_pair("clip2")
    assert isinstance(pair, MixerPair) and 5 < float(pair.inverse_temperature) < 20
    assert training.learning_rate(recipe.PLANS["clip2"], 899) < 1e-4
