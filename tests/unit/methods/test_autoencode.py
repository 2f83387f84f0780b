"""The model's own encoder."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Space
from methods.inversion.autoencode import Autoencode


def attached(model, **settings) -> Autoencode:
    editor = Autoencode(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


@pytest.fixture(scope="module")
def batch() -> Batch:
    return toy.ToyData().batch("test", range(2))


@pytest.mark.parametrize(("name", "space"), [("vae", Space.VAE), ("gan", Space.STYLE)])
def test_the_code_is_the_encoders_and_decodes(name, space, batch, request):
    model = request.getfixturevalue(name)
    editor = attached(model)
    latent = editor.invert(batch)
    assert set(latent.parts) == {space}
    assert torch.equal(latent.parts[space], model.encode(batch.images))
    assert torch.equal(editor.decode(latent), model.decode(model.encode(batch.images)))
    assert torch.equal(editor.represent(batch), latent.parts[space])


def test_the_inverted_noise_is_of_the_loop_under_the_code(diffae, batch):
    editor = attached(diffae)
    latent = editor.invert(batch)
    code = diffae.encode_semantic(batch.images)
    assert torch.equal(latent.parts[Space.SEMANTIC], code)
    x = ddim_invert(diffae, batch, Cache(None), condition=diffae.semantic_condition(code))
    assert torch.equal(latent.parts[Space.NOISE], x)
    untold = ddim_invert(diffae, batch, Cache(None))
    assert float((x - untold).abs().max()) > 1e-3
    condition = diffae.semantic_condition(code)
    expected = diffae.decode(generate(diffae, x, guided(condition, condition, 1.0)))
    assert torch.equal(editor.decode(latent), expected)


def test_fresh_noise_is_of_the_id_and_the_code_the_same(diffae, batch):
    fresh, inverted = attached(diffae, noise="fresh"), attached(diffae)
    a, b = fresh.invert(batch), inverted.invert(batch)
    assert torch.equal(a.parts[Space.SEMANTIC], b.parts[Space.SEMANTIC])
    x = Streams(0).normal("autoencode", batch.ids, diffae.latent_shape)
    assert torch.equal(a.parts[Space.NOISE], x)
    assert float((fresh.decode(a) - inverted.decode(b)).abs().max()) > 1e-2
