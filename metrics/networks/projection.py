"""Projection of images onto the rendered faces: the face that judges read, as it is drawn."""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Surroundings
from latentbench.zoo.answers import PROJECTORS
from metrics.networks.reader import Reader


class Projector:
    """Draws the face that zoo2 and zoo3 read on an image: the mean of what they read.

    Args:
        surroundings: gives the judges, and the data set that draws.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self.dataset = surroundings.dataset
        self.readers = [Reader(name, surroundings) for name in PROJECTORS]

    def factors(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n f"]:
        """Return the factors that are read on images, in [0, 1]."""
        return torch.stack([reader.factors(images) for reader in self.readers]).mean(0)

    def draw(self, factors: Float[Tensor, "*n f"]) -> Float[Tensor, "*n 3 h w"]:
        """Return the faces of factors."""
        return self.dataset.render(factors.flatten(0, -2)).unflatten(0, factors.shape[:-1])

    def __call__(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """Return the faces that are read on images."""
        return self.draw(self.factors(images))
