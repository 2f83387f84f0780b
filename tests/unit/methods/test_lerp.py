"""Linear interpolation."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.model import Condition
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Endpoint, Space
from methods.interpolation.lerp import LinearInterpolation

IDS = ("0", "1")


def attached(model, **settings) -> LinearInterpolation:
    editor = LinearInterpolation(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def ends(model) -> tuple[Endpoint, Endpoint]:
    a, b = (Streams(k).normal("prior", IDS, model.latent_shape) for k in range(2))
    return Endpoint(IDS, a, ("hat", "a face")), Endpoint(IDS, b, ("smile", "a face with hat"))


def test_middle_frame_is_the_middle_of_noise_and_prompts(latent):
    a, b = ends(latent)
    frames = attached(latent).interpolate(a, b, 3)
    one, two = (latent.condition(e.prompts, 2) for e in (a, b))
    middle = Condition({k: (v + two.tensors[k]) / 2 for k, v in one.tensors.items()})
    terms = guided(middle, latent.condition(None, 2), latent.guidance)
    expected = latent.decode(generate(latent, (a.noise + b.noise) / 2, terms))
    torch.testing.assert_close(frames[:, 1], expected, rtol=1e-3, atol=1e-4)


def test_middle_noise_has_norm_0_707(pixel):
    ids = tuple(map(str, range(32)))
    a, b = (Streams(k).normal("prior", ids, pixel.latent_shape) for k in range(2))
    middle = attached(pixel).mix(a, b, torch.linspace(0, 1, 3).repeat(32, 1))[:, 1]
    ratio = middle.flatten(1).norm(dim=1) / a.flatten(1).norm(dim=1)
    assert float(ratio.mean()) == pytest.approx(0.5**0.5, abs=0.01)


def test_short_noise_washes_images_out(gaussian):
    """The reason for slerp, on an exact model: the middle frame has less variance than the ends."""
    ids = tuple(map(str, range(64)))
    a, b = (Endpoint(ids, Streams(k).normal("prior", ids, gaussian.latent_shape)) for k in range(2))
    frames = attached(gaussian).interpolate(a, b, 3)
    std = frames.std((0, 2, 3, 4))
    assert float(std[1] / std[0]) == pytest.approx(0.5**0.5, abs=0.03)


def test_real_images_are_inverted_under_their_prompts(latent):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(latent, guidance=1.0)
    a = Endpoint(batch.ids, images=batch.images, prompts=batch.prompts)
    b = Endpoint(batch.ids, images=batch.images.flip(0), prompts=batch.prompts[::-1])
    x = ddim_invert(latent, batch, Cache(None), condition=latent.condition(batch.prompts, 2))
    assert torch.equal(editor.latent(a).parts[Space.NOISE], x)
    terms = guided(latent.condition(batch.prompts, 2), Condition(), 1.0)
    expected = latent.decode(generate(latent, x, terms))
    frames = editor.interpolate(a, b, 2)
    torch.testing.assert_close(frames[:, 0], expected, rtol=1e-3, atol=1e-4)


def test_paths_do_not_mix(pixel):
    a, b = ends(pixel)
    both = attached(pixel).interpolate(a, b, 4)
    for k in range(2):
        one, two = (Endpoint(IDS[k : k + 1], e.noise[k : k + 1]) for e in (a, b))
        alone = attached(pixel).interpolate(one, two, 4)
        torch.testing.assert_close(both[k], alone[0], rtol=1e-3, atol=1e-4)
