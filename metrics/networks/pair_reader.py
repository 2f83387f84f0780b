"""What metrics read images and captions with, when the text-image pair is one of this suite."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import map_batches
from latentbench.zoo.text_image import load_pair
from metrics.networks.reader import BATCH


class PairReader:
    """An embedded text-image pair that reads images of any number of leading axes.

    Args:
        name: the pair's name, "clip1" or "clip2".
        device: where it runs.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.device, self.pair = device, load_pair(name, device)

    def image(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return unit embeddings of images."""
        rows = images.flatten(0, -4)
        found = map_batches(lambda part: self.pair.image(part.to(self.device)).cpu(), rows, BATCH)
        return found.unflatten(0, images.shape[:-3])

    def text(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Return unit embeddings of captions, each read alone: padding is part of the rounding."""
        return torch.cat([self.pair.text([caption]).cpu() for caption in captions])
