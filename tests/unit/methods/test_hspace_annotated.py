"""h-space of annotated samples: which samples make a direction, and that no label is read."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import Recorder, generate, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Edit, Space
from methods.directions.hspace_annotated import HSpaceAnnotated

SMALL = {"images": 16, "extremes": 4, "steps": 5}


class Unlabelled(toy.ToyData):
    """The toy data without labels."""

    def batch(self, split, indices):
        found = super().batch(split, indices)
        return Batch(found.ids, found.images, found.prompts)


def fitted(model, names=("hat",), **settings):
    editor = HSpaceAnnotated(**{**SMALL, **settings})
    parts = {"classifier": toy.PatternClassifier()}
    editor.attach(model, Streams(0), Cache(None), parts)
    editor.fit(Unlabelled(), [Edit(f"{n}+", n) for n in names])
    return editor


@pytest.mark.parametrize("space", ["bottleneck", "noise"])
def test_it_is_the_difference_of_the_samples_that_the_classifier_scores_apart(pixel, space):
    found = fitted(pixel, space=space).directions_["hat"].shift
    x = pixel.prior(Streams(0), [f"annotated/{k}" for k in range(16)]).parts[Space.NOISE]
    recorder = Recorder(bottleneck=True)
    told = plain(pixel.unconditional(16))
    images = generate(pixel, x, told, grid=pixel.grid(5), interventions=[recorder])
    order = toy.PatternClassifier().read(images.clamp(-1, 1))[:, 1].argsort()
    codes = x if space == "noise" else torch.stack([recorder.h[i] for i in range(5)], 1)
    expected = codes[order[-4:]].mean(0) - codes[order[:4]].mean(0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_it_needs_a_classifier_in_the_place_of_labels():
    _, needs = HSpaceAnnotated.required(["edit"], {})
    assert needs == {Capability.CLASSIFIER}


def test_what_the_classifier_does_not_know_is_refused(pixel):
    with pytest.raises(BadInput, match="label of classifier"):
        fitted(pixel, ["beard"])
