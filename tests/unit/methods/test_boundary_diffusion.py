"""BoundaryDiffusion: boundaries, coordinates, and the one step that is changed."""

import numpy as np
import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit, Space
from methods.directions.boundary_diffusion import BoundaryDiffusion, linear_boundary

DATA = toy.ToyData()
HAT, BARE = Edit("hat+", "hat"), Edit("hat-", "hat", -1)


def attached(model, **settings):
    editor = BoundaryDiffusion(**{"images": 24, "mixing": 0.6, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    editor.fit(DATA, [HAT])
    return editor


@pytest.fixture(scope="module")
def both(pixel):
    return fitted(pixel)


def coordinate(editor, batch, edit, strengths):
    """Return n.x of what is sampled from."""
    x = editor.invert(batch).parts[Space.NOISE].repeat_interleave(len(strengths), 0)
    moved = editor._moved("x", edit, x, strengths.repeat(len(batch)))
    return (moved.flatten(1) @ editor.boundaries_["hat/x/normal"]).reshape(len(batch), -1)


def test_a_boundary_separates_and_its_normal_is_a_unit_vector():
    rng = np.random.default_rng(0)
    shown = np.arange(40) % 2 == 0
    rows = rng.normal(size=(40, 300)) + 3 * np.where(shown, 1, -1)[:, None] * np.eye(300)[7]
    normal, offset = linear_boundary(rows, shown)
    assert np.linalg.norm(normal) == pytest.approx(1) and normal.argmax() == 7
    assert ((rows @ normal + offset > 0) == shown).all()


def test_held_out_images_are_separated_where_the_attribute_is_planted(both):
    assert float(both.boundaries_["hat/x/accuracy"]) > 0.8


def test_strength_1_brings_all_images_to_one_coordinate_and_0_leaves_them(both):
    batch = DATA.batch("test", [0, 1, 2])
    along = coordinate(both, batch, HAT, torch.tensor([0.0, 0.5, 1.0]))
    end = 0.34 * (3 * toy.SIZE**2) ** 0.5
    torch.testing.assert_close(along[:, 2], torch.full((3,), end), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(along[:, 1], along[:, [0, 2]].mean(1), rtol=1e-4, atol=1e-3)
    assert float((along[:, 0] - along[:1, 0]).abs().max()) > 1e-3
    other = coordinate(both, batch, BARE, torch.ones(1))
    torch.testing.assert_close(other[:, 0], torch.full((3,), -end), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("spaces", ["both", "x", "h"])
def test_strength_0_is_the_reconstruction_and_1_is_not(pixel, spaces):
    editor, batch = fitted(pixel, spaces=spaces), DATA.batch("test", [0, 1])
    images = editor.edit(batch, HAT, torch.tensor([0.0, 1.0]))
    own = editor.decode(editor.invert(batch))
    torch.testing.assert_close(images[:, 0], own, rtol=1e-3, atol=1e-4)
    assert float((images[:, 1] - images[:, 0]).abs().flatten(1).amax(1).min()) > 1e-3


def test_h_is_replaced_in_one_step_alone(pixel, both):
    """The published code hands every later step the bottleneck of the one before it."""
    calls = []
    from methods.directions.boundary_diffusion import ReplaceBottleneck

    class Watched(ReplaceBottleneck):
        def bottleneck(self, step, h):
            calls.append(step.index)
            return super().bottleneck(step, h)

    latent = both.invert(DATA.batch("test", [0]))
    h = both._bottleneck(latent.parts[Space.NOISE])
    both._sample(latent, Watched(h, latent.start))
    assert calls == [latent.start] == [2]


def test_the_noise_is_each_images_own(both):
    pair, alone = both.invert(DATA.batch("test", [0, 1])), both.invert(DATA.batch("test", [1]))
    maps = pair.parts[Space.NOISE_MAPS]
    assert maps.shape[1] == 3 and torch.equal(maps[1:], alone.parts[Space.NOISE_MAPS])


def test_what_cannot_be_fitted_is_refused(pixel):
    with pytest.raises(BadInput, match="unknown attribute 'beard'"):
        attached(pixel).fit(DATA, [Edit("beard+", "beard")])
    with pytest.raises(BadInput, match="unknown attribute 'smile'"):
        fitted(pixel).edit(DATA.batch("test", [0]), Edit("smile+", "smile"), torch.ones(1))
    with pytest.raises(BadInput, match="is an end of the 5 sampling steps"):
        BoundaryDiffusion(mixing=0.99).check(DATA, 5, [1.0])
