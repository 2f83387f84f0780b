"""Relative stitching: what rotated spaces keep, and whose encoder and decoder are used."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.model import Evaluations, LatentModel
from latentbench.models.push_forward import PushForward
from latentbench.streams import Streams
from latentbench.types import Space
from methods.representation.relative_stitching import (
    RelativeStitching,
    procrustes,
    relative,
    ridge_regression,
)

DATA = toy.ToyData(noise=0.0)
PATTERNS = torch.stack([toy.pattern(name, 16) for name in toy.FACTORS])


class Patterns(PushForward):
    """Images whose code is how much of each pattern they hold, through a map of its own."""

    code_space = Space.VAE
    spaces = frozenset({Space.NOISE, Space.VAE})
    image_size = 16

    def __init__(self, map_: torch.Tensor, shift: float = 0.0) -> None:
        self.map, self.shift = map_, shift
        self.latent_shape, self.device = (3,), torch.device("cpu")
        self.evaluations = Evaluations()

    def networks(self):
        return ()

    def push(self, noise):
        return noise

    def encode(self, images):
        seen = torch.einsum("bchw,fchw->bf", images, PATTERNS)
        return seen / PATTERNS.square().sum((1, 2, 3)) @ self.map + self.shift

    def decode(self, latent):
        planted = (latent - self.shift) @ torch.linalg.pinv(self.map)
        return torch.einsum("bf,fchw->bchw", planted, PATTERNS)


def turn(seed: int) -> torch.Tensor:
    drawn = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn).Q


PLAIN, TURNED = Patterns(torch.eye(3)), Patterns(2 * turn(1), shift=0.5)


def stitched(model: LatentModel, other: LatentModel, **settings) -> RelativeStitching:
    asked = {"anchors": 64, "images": 128, "ridge": 1e-6, **settings}
    editor = RelativeStitching(**asked)
    editor.attach(model, Streams(0), Cache(None), {"encoder": other})
    editor.fit(DATA, [])
    return editor


def error(editor: RelativeStitching) -> float:
    """RMSE of reconstructions of held-out images, as a share of their spread."""
    batch = DATA.batch("test", range(16))
    gap = editor.decode(editor.invert(batch)) - batch.images
    return float(gap.square().mean().sqrt() / (batch.images - batch.images.mean(0)).std())


def test_a_turned_scaled_and_shifted_space_is_read_through_anchors_alone():
    """What is lost is the length of a code; the code as it is shows another image."""
    assert error(stitched(PLAIN, PLAIN, bridge="absolute")) < 1e-3
    assert error(stitched(PLAIN, TURNED, bridge="absolute")) > 1
    own = error(stitched(PLAIN, PLAIN))
    assert own < 0.6
    assert abs(error(stitched(PLAIN, TURNED)) - own) < 0.01


def test_a_shift_shows_where_nothing_is_centred():
    own = error(stitched(PLAIN, PLAIN, centred=False))
    assert error(stitched(PLAIN, TURNED, centred=False)) > own + 0.1


def test_pairs_of_codes_undo_what_their_maps_can():
    sheared = Patterns(torch.tensor([[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.3]]))
    assert error(stitched(PLAIN, TURNED, bridge="procrustes")) < 1e-3
    assert error(stitched(PLAIN, sheared, bridge="procrustes")) > 0.1
    assert error(stitched(PLAIN, sheared, bridge="linear")) < 1e-3


def test_the_map_of_relative_has_not_seen_the_other_model():
    one, two = (stitched(PLAIN, other) for other in (PLAIN, TURNED))
    torch.testing.assert_close(one.learned_["map"], two.learned_["map"])
    assert not torch.allclose(one.learned_["anchors"], two.learned_["anchors"])


def test_cosines_are_those_of_anchors_seen_from_the_centre():
    drawn = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    codes, anchors, centre = drawn[:4], drawn[4:8], drawn[8:]
    expected = torch.cosine_similarity((codes - centre)[:, None], (anchors - centre)[None], dim=2)
    torch.testing.assert_close(relative(codes, anchors, centre), expected)


def test_both_maps_between_pairs_are_least_squares():
    drawn = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    x, y = drawn[:, :3], drawn[:, 3:]
    torch.testing.assert_close(
        ridge_regression(x, y, 1e-12), torch.linalg.lstsq(x, y).solution, rtol=1e-4, atol=1e-5
    )
    R = procrustes(x, x @ turn(2))
    torch.testing.assert_close(R, turn(2), rtol=1e-4, atol=1e-5)


def test_a_model_that_takes_x_t_gets_fresh_noise(diffae, vae):
    editor = stitched(diffae, vae, anchors=24, images=32)
    batch = DATA.batch("test", range(2))
    latent = editor.invert(batch)
    drawn = Streams(0).normal("relative_stitching", batch.ids, diffae.latent_shape)
    assert torch.equal(latent.parts[Space.NOISE], drawn)
    assert torch.equal(latent.parts[Space.SEMANTIC], editor.represent(batch))


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadInput, match="9 anchors are more than the 8 images"):
        RelativeStitching(anchors=9, images=8)
    longer = Patterns(torch.eye(3, 5))
    with pytest.raises(BadInput, match="have 5 numbers, those of the model 3"):
        stitched(PLAIN, longer, bridge="absolute")
    large = Patterns(torch.eye(3))
    large.image_size = 32
    with pytest.raises(BadInput, match="images of 32 pixels, the model 16"):
        stitched(PLAIN, large)
    bare = RelativeStitching()
    bare.attach(PLAIN, Streams(0), Cache(None), {"encoder": PLAIN})
    with pytest.raises(BadInput, match="has learned nothing yet"):
        bare.represent(DATA.batch("test", [0]))
