"""Dense features of the middle block."""

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.streams import Streams
from methods.representation.dense_features import DenseFeatures


def maps(model, **settings):
    editor = DenseFeatures(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor.feature_maps(toy.ToyData().batch("test", [0, 1]))["bottleneck"]


def test_features_have_places(pixel):
    found = maps(pixel)
    assert found.ndim == 4 and found.shape[0] == 2 and min(found.shape[2:]) > 1


def test_a_larger_ensemble_costs_a_pass_per_noise_and_averages(pixel):
    before = pixel.evaluations.forward
    maps(pixel, ensemble=3)
    assert pixel.evaluations.forward - before == 3 * 2


def test_the_noise_level_is_where_features_are_read(pixel):
    assert float((maps(pixel, noise_level=0.1) - maps(pixel, noise_level=0.9)).abs().max()) > 1e-3
