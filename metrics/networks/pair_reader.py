"""What metrics read images and captions with, when the text-image pair is one of this suite."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import map_batches
from latentbench.data.dataset import Dataset
from latentbench.errors import NotMeasurable
from latentbench.zoo.text_image import load_pair, words_of
from metrics.networks.reader import BATCH

SPLIT, LOOKED_AT = "test", 4  # captions that tell before any work whether a pair can read them


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
        """Return unit embeddings of captions, each read alone: padding is part of the rounding.

        Raises:
            NotMeasurable: a word that the pair never saw.
        """
        unseen = _unseen(captions, self.pair.words)
        if unseen is not None:
            raise NotMeasurable(_why(self.pair.name, unseen))
        return torch.cat([self.pair.text([caption]).cpu() for caption in captions])


def unread(name: str, dataset: Dataset) -> str | None:
    """Return why a pair cannot read this data set's captions, or None; no network is loaded.

    The first captions tell; `PairReader.text` refuses a word that comes later.

    Args:
        name: the pair's name.
        dataset: one that gives prompts.

    Example:
        ``unread("clip2", FacesDataset())`` is None.
    """
    index = range(min(LOOKED_AT, dataset.size(SPLIT)))
    unseen = _unseen(dataset.describe(SPLIT, index).prompts or (), words_of(name))
    return None if unseen is None else f"{_why(name, unseen)}, as {type(dataset).__name__} has it"


def _unseen(captions: Sequence[str], words: Sequence[str]) -> str | None:
    """Return the first word of the captions that is none of these, or None."""
    return next((w for caption in captions for w in caption.split() if w not in words), None)


def _why(name: str, word: str) -> str:
    return f"reads captions with {name}, which knows words of faces alone and not {word!r}"
