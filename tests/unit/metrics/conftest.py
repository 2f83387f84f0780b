"""A judge without weights, and data whose images are their factors."""

import pytest
import torch
from planted import PlantedData, PlantedJudge

from latentbench.cache import Cache
from latentbench.metric import Surroundings


@pytest.fixture
def surroundings() -> Surroundings:
    def judges(name, device):
        return PlantedJudge(name).to(device)

    return Surroundings(PlantedData(), torch.device("cpu"), Cache(None), judge=judges)
