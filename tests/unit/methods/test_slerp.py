"""Spherical interpolation."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.sampling import linear
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Endpoint
from methods.interpolation.slerp import SphericalInterpolation

IDS = tuple(map(str, range(64)))


def attached(model) -> SphericalInterpolation:
    editor = SphericalInterpolation()
    editor.attach(model, Streams(0), Cache(None))
    return editor


def ends(model, ids=IDS) -> tuple[Endpoint, Endpoint]:
    a, b = (Streams(k).normal("prior", ids, model.latent_shape) for k in range(2))
    return Endpoint(ids, a), Endpoint(ids, b)


def test_frames_are_decoded_arcs(pixel):
    a, b = ends(pixel, IDS[:2])
    frames = attached(pixel).interpolate(a, b, 5)
    arcs = linear.slerp(a.noise, b.noise, torch.linspace(0, 1, 5))
    terms = guided(pixel.condition(None, 2), pixel.condition(None, 2), 1.0)
    for k in (1, 3):
        expected = generate(pixel, arcs[:, k], terms)
        torch.testing.assert_close(frames[:, k], expected, rtol=1e-3, atol=1e-4)


def test_middle_noise_keeps_its_norm(pixel):
    a, b = ends(pixel)
    halves = torch.linspace(0, 1, 3).repeat(len(a.noise), 1)
    middle = attached(pixel).mix(a.noise, b.noise, halves)[:, 1]
    ratio = middle.flatten(1).norm(dim=1) / a.noise.flatten(1).norm(dim=1)
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.01)


def test_middle_frames_are_as_varied_as_the_ends(gaussian):
    """Both sides of lerp's test: on an exact model slerp stays on the data's law."""
    std = attached(gaussian).interpolate(*ends(gaussian), 3).std((0, 2, 3, 4))
    assert float(std[1] / std[0]) == pytest.approx(1.0, abs=0.03)
