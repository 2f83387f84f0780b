"""The truncation trick in w and in noise."""

from math import prod

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible
from latentbench.streams import Streams
from latentbench.types import Space
from methods.generation.plain import PlainSampling
from methods.generation.truncation import Truncation

DATA, IDS = toy.ToyData(), ("a", "b", "c")


def attached(editor, model):
    editor.attach(model, Streams(0), Cache(None))
    editor.fit(DATA, [])
    return editor


def test_a_code_moves_its_share_of_the_way_to_the_mean_of_codes(gan):
    editor = attached(Truncation(psi=0.25, pool=2000), gan)
    z = gan.prior(Streams(0), IDS).parts[Space.NOISE]
    others = gan.push(torch.randn(20_000, 16, generator=torch.Generator().manual_seed(7)))
    w, mean = gan.push(z), others.mean(0)
    found = editor.changed(z, IDS)
    assert set(found) == {Space.STYLE}
    error = others.std(0) / 2000**0.5  # of the pool's mean
    assert ((found[Space.STYLE] - (mean + 0.25 * (w - mean))).abs() < 4 * error).all()


def test_psi_1_is_plain_sampling(gan, vae):
    for model in (gan, vae):
        expected = attached(PlainSampling(), model).generate(IDS, None)
        found = attached(Truncation(psi=1.0, pool=10), model).generate(IDS, None)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("space", ["code", "noise"])
def test_noise_that_no_network_maps_is_scaled(pixel, space):
    editor = attached(Truncation(psi=0.5, space=space, pool=10), pixel)
    z = pixel.prior(Streams(0), IDS).parts[Space.NOISE]
    assert torch.equal(editor.changed(z, IDS)[Space.NOISE], 0.5 * z)


def test_no_pool_is_drawn_for_the_mean_of_noise(pixel, monkeypatch):
    """Ten thousand noises of a large model are gigabytes."""
    monkeypatch.setattr("methods.generation.truncation.coded", None)
    learned = attached(Truncation(), pixel).state()
    assert torch.equal(learned["centre"], torch.zeros(prod(pixel.latent_shape)))


def test_noise_of_any_length_is_refused_where_it_gives_the_same_image(gan, vae):
    with pytest.raises(Incompatible, match="normalises its noise"):
        attached(Truncation(space="noise"), gan).generate(IDS, None)
    for psi in (0.7, 0.9999):
        attached(Truncation(space="noise", psi=psi), vae).generate(IDS, None)


def test_no_mean_is_refused(gan):
    editor = Truncation()
    editor.attach(gan, Streams(0), Cache(None))
    with pytest.raises(BadInput, match="call fit"):
        editor.generate(IDS, None)
