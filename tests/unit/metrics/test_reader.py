from dataclasses import replace

import pytest
import torch
from planted import PlantedData, PlantedJudge, outputs_of

from latentbench.cache import Cache
from latentbench.errors import NotFinite
from metrics.networks.reader import Reader, read_split
from metrics.sets.prdc import PrecisionRecall


@pytest.fixture
def overflowing(surroundings):
    """Return surroundings whose judge overflows on black images."""

    def features(self, images):
        found = PlantedJudge.features(self, images)
        return torch.where(images.flatten(1).amax(1, keepdim=True) < -0.9, torch.inf, found)

    judge = type("Overflowing", (PlantedJudge,), {"features": features})()
    return replace(surroundings, judge=lambda name, device: judge)


def test_what_a_network_cannot_read_is_no_figure(overflowing):
    """A set distance would count NaN as an image that is in no ball."""
    images = PlantedData().batch("test", range(8)).images
    reader = Reader("zoo1", overflowing)
    assert reader.features(images).isfinite().all()
    images[3] = -1
    with pytest.raises(NotFinite, match="zoo1 reads NaN or infinity on 1 of 8 images"):
        reader.features(images)
    metric = PrecisionRecall(reference_n=16)
    metric.prepare(overflowing)
    with pytest.raises(NotFinite):
        metric.update(outputs_of(images))


def test_data_of_other_settings_are_read_anew(surroundings, tmp_path):
    """A setting of several values comes as a list; a data set of a plug-in may keep it as it is."""

    class Tinted(PlantedData):
        def __init__(self, tint):
            super().__init__()
            self.tint = tint

        def batch(self, split, indices):
            batch = super().batch(split, indices)
            return replace(batch, images=batch.images * self.tint[0])

    around = replace(surroundings, cache=Cache(tmp_path))
    found = []
    for tint in ([1.0], [0.5]):
        there = replace(around, dataset=Tinted(tint))
        found.append(read_split(there, Reader("zoo1", there), "features", "test", range(4)))
    assert torch.allclose(found[0], 2 * found[1])
