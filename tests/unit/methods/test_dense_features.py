"""Dense features of the middle block."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from methods.representation.dense_features import DenseFeatures


def maps(model, **settings):
    editor = DenseFeatures(**settings)
    editor.attach(model, Streams(0), Cache(None))
    found = editor.feature_maps(toy.ToyData().batch("test", [0, 1]))
    return found if settings.get("layers") else found["bottleneck"]


def test_features_have_places(pixel):
    found = maps(pixel)
    assert found.ndim == 4 and found.shape[0] == 2 and min(found.shape[2:]) > 1


def test_a_larger_ensemble_costs_a_pass_per_noise_and_averages(pixel):
    before = pixel.evaluations.forward
    maps(pixel, ensemble=3)
    assert pixel.evaluations.forward - before == 3 * 2


def test_the_noise_level_is_where_features_are_read(pixel):
    assert float((maps(pixel, noise_level=0.1) - maps(pixel, noise_level=0.9)).abs().max()) > 1e-3


def test_layers_are_read_by_name_in_one_pass(pixel):
    before, names = pixel.evaluations.forward, ("mid_block", "up_blocks.0.resnets.0:residual")
    found = maps(pixel, layers=names, ensemble=2)
    assert pixel.evaluations.forward - before == 2 * 2
    assert tuple(found) == names
    assert torch.equal(found["mid_block"], maps(pixel, ensemble=2))
    block = pixel.network.get_submodule("up_blocks.0.resnets.0.conv2")
    assert found[names[1]].shape[1] == block.out_channels


def test_an_unknown_layer_is_refused(pixel):
    with pytest.raises(BadInput, match="did you mean mid_block"):
        maps(pixel, layers=["midblock"])
