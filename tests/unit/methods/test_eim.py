"""EIM: directions of text and image latents."""

import pytest
import torch
import transformers_toy as small

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.flux import Flux
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.eim import EncodeIdentifyManipulate, newton_step

SOURCES, TARGETS = ("a face with hat", "a face"), ("a face with smile", "a face with glasses")
EDIT, BOTH = Edit("x", target_prompts=TARGETS), torch.tensor([0.0, 1.0])
FEW = {"steps": 4, "iterations": 2, "draws": 1}


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    path = small.save_sd3(tmp_path_factory.mktemp("sd3"), small.SD35_MEDIUM)
    return TransformerFlow(path=path, steps=4, guidance=3.0)


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    path = small.save_flux(tmp_path_factory.mktemp("flux"), small.FLUX_DEV, small.DEV_SCHEDULE)
    return Flux(path=path, steps=4, image_size=16, guidance=1.0)


def attached(model, **settings):
    editor = EncodeIdentifyManipulate(**FEW | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def batch_of(model, prompts=SOURCES) -> Batch:
    images = toy.ToyData(model.image_size).batch("test", range(len(prompts))).images
    return Batch(tuple(map(str, range(len(prompts)))), images, prompts)


@pytest.mark.parametrize("name", ["latent", "sd3", pytest.param("flux", marks=pytest.mark.slow)])
def test_strength_0_is_the_reconstruction_and_both_parts_count(name, request):
    model = request.getfixturevalue(name)
    batch, editor = batch_of(model), attached(model)
    found = editor.edit(batch, EDIT, BOTH)
    torch.testing.assert_close(
        found[:, 0], editor.decode(editor.invert(batch)), rtol=1e-3, atol=1e-3
    )
    for mode in ("text", "image"):
        part = attached(model, mode=mode).edit(batch, EDIT, BOTH)
        assert float((part[:, 1] - found[:, 1]).abs().max()) > 1e-3
        assert float((part[:, 1] - part[:, 0]).abs().max()) > 1e-3


def test_the_displacement_points_to_the_target(gaussian):
    """Of an exact model, x0 differs by the means' difference, shrunk by what the level tells."""
    prompts = ("a face with hat",) * 4
    batch = Batch(tuple("abcd"), gaussian.draw(prompts), prompts)
    editor = attached(gaussian, iterations=4, draws=8, steps=20, kept_words=0)
    D = editor.displacement(batch, ("a face with smile",) * 4)
    way = gaussian.mean("smile") - gaussian.mean("hat")
    cosine = torch.cosine_similarity(D.flatten(1), way.flatten()[None], 1)
    assert float(cosine.min()) > 0.9


def test_what_is_kept_is_left_alone(gaussian):
    """A target that also drops a kept word: its direction is held back by 1 + lambda."""
    batch = Batch(("a",), gaussian.draw(("hat glasses",)), ("hat glasses",))
    word = gaussian.mean("hat")
    moved = {}
    for weight in (0.0, 9.0):
        editor = attached(gaussian, iterations=1, draws=4, steps=20, hold=weight, kept_words=1)
        editor.preserved = lambda sources, targets: [("glasses",)]
        D = editor.displacement(batch, ("smile",))
        moved[weight] = float((D * word).sum())
    assert moved[0.0] < 0 and moved[9.0] == pytest.approx(moved[0.0] / 10, rel=1e-2)


def test_a_step_within_the_kept_space_shrinks_and_the_rest_stays():
    g, u = torch.tensor([[2.0, 2.0, 2.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    found = newton_step(g, [u, 2 * u, 0 * u], 4.0)
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.4, 2.0]]))
    assert torch.equal(newton_step(g, [0 * u], 4.0), g)


def test_preserved_captions(latent):
    editor = attached(latent, kept_words=2)
    without = editor.preserved(("a face with hat", "face"), ("a face with smile", "hat"))
    assert without == [("face with hat", "face"), ("a with hat", "face")]


def test_evaluations(latent):
    """Directions are found once for all strengths."""
    editor, batch = attached(latent, kept_words=1), batch_of(latent)
    before = latent.evaluations.forward
    editor.edit(batch, EDIT, torch.tensor([0.5, 1.0]))
    b, s, made = 2, 2, 2
    assert latent.evaluations.forward - before == 2 * b * 3 + 2 * b * s * made


def test_settings_without_a_step_are_refused():
    data = toy.ToyData()
    for settings, words in (
        ({"share": 0.1}, "is less than one of 4"),
        ({"first": 0.6, "last": 0.7}, "no level of 4 sampling steps"),
    ):
        with pytest.raises(BadInput, match=words):
            EncodeIdentifyManipulate(**settings).check(data, 4, [1.0])
