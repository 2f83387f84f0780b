"""Text-image pairs: an image tower and a text tower that meet in one space, as in CLIP.

``clip1`` is for models and methods, trained on the generators' split. ``clip2`` judges what they
make: other towers, other seed, the judges' split. Captions are sets of words that the pair was
trained on; several words, in any order, or none.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentbench.errors import BadInput, unknown
from latentbench.models.convolutions import ImageEncoder
from latentbench.zoo.judges import INPUT_SIZE, MixerTrunk, to_input_size
from latentbench.zoo.loading import checked_config, load_network

EMBEDDING = 64


class TextImagePair(nn.Module):
    """Two towers with one embedding space, and the inverse temperature that they were trained at.

    Source: "Learning Transferable Visual Models From Natural Language Supervision", section 2.3.

    Args:
        name: identifier that metric columns carry.
        words: the vocabulary; word k has id k + 1, and 0 fills up short captions.
    """

    inverse_temperature: Tensor

    def __init__(self, name: str, words: Sequence[str]) -> None:
        super().__init__()
        self.name, self.words = name, tuple(words)
        self._ids = {word: k + 1 for k, word in enumerate(self.words)}
        self.register_buffer("inverse_temperature", torch.tensor(10.0))

    def read_image(self, images: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b d"]:
        """Return the embedding before it is scaled to unit length."""
        raise NotImplementedError

    def read_text(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Return the embedding of word ids before it is scaled to unit length."""
        raise NotImplementedError

    def tokens(self, captions: Sequence[str]) -> Int[Tensor, "b t"]:
        """Return word ids, filled up with 0 to the longest caption.

        Raises:
            BadInput: A word that the pair never saw; names near ones.
        """
        rows = [[self._id(word) for word in caption.split()] for caption in captions]
        length = max([1, *(len(row) for row in rows)])
        padded = [row + [0] * (length - len(row)) for row in rows]
        found = torch.tensor(padded, dtype=torch.long, device=self.inverse_temperature.device)
        return found.reshape(len(rows), length)

    def _id(self, word: str) -> int:
        if word not in self._ids:
            raise unknown(f"word of {self.name}", word, self.words)
        return self._ids[word]

    def image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return unit embeddings of square RGB images in [-1, 1], resized to 64 px."""
        return F.normalize(self.read_image(to_input_size(images)), dim=1)

    def text(self, captions: Sequence[str]) -> Float[Tensor, "c d"]:
        """Return unit embeddings of captions."""
        return F.normalize(self.read_text(self.tokens(captions)), dim=1)

    def similarity(
        self, images: Float[Tensor, "b 3 h w"], captions: Sequence[str]
    ) -> Float[Tensor, " b"]:
        """Return the cosine of each image with its own caption.

        Raises:
            BadInput: Not one caption per image.
        """
        if len(captions) != len(images):
            raise BadInput(f"got {len(captions)} captions for {len(images)} images; give one each")
        return (self.image(images) * self.text(captions)).sum(1)


class ConvolutionalPair(TextImagePair):
    """``clip1``: residual convolutions, and a transformer over the words."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        channels: Sequence[int] = (24, 40, 64, 96),
        width: int = 64,
        layers: int = 2,
    ) -> None:
        super().__init__(name, words)
        self.vision = ImageEncoder(INPUT_SIZE, channels, EMBEDDING)
        self.table = nn.Embedding(len(words) + 1, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, EMBEDDING)

    def read_image(self, images: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b d"]:
        """Return the image tower's output."""
        return self.vision(images)

    def read_text(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Return the state of a leading token that has attended to all words."""
        ids = F.pad(ids, (1, 0))
        empty = ids == 0
        empty[:, 0] = False  # the leading token: reads, means no word
        return self.head(self.transformer(self.table(ids), src_key_padding_mask=empty)[:, 0])


class MixerPair(TextImagePair):
    """``clip2``: depthwise convolutions, and a perceptron over the sum of word vectors."""

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        channels: Sequence[int] = (40, 80, 112),
        width: int = 128,
    ) -> None:
        super().__init__(name, words)
        self.vision = MixerTrunk(channels)
        self.vision_head = nn.Linear(channels[-1] * 16, EMBEDDING)
        self.table = nn.Embedding(len(words) + 1, EMBEDDING, padding_idx=0)
        self.head = nn.Sequential(
            nn.Linear(EMBEDDING, width), nn.GELU(), nn.Linear(width, EMBEDDING)
        )

    def read_image(self, images: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b d"]:
        """Return a linear reading of the last stage."""
        return self.vision_head(self.vision(images)[-1].flatten(1))

    def read_text(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Return the perceptron's output, with a shortcut."""
        total = self.table(ids).sum(1)
        return total + self.head(total)


ARCHITECTURES: dict[str, Callable[..., TextImagePair]] = {
    "ConvolutionalPair": ConvolutionalPair,
    "MixerPair": MixerPair,
}
PAIRS = ("clip1", "clip2")
JudgingPair = Literal["clip2"]
JUDGING_PAIRS: tuple[str, ...] = get_args(JudgingPair)


def load_pair(name: str, device: str | torch.device = "cpu") -> TextImagePair:
    """Load a text-image pair after checking its hash.

    Args:
        name: ``"clip1"`` (for models and methods) or ``"clip2"`` (judges them).
        device: where to put it.

    Returns:
        The pair in evaluation mode, float32, without gradients on its weights.

    Raises:
        BadInput: Unknown name.
        MissingWeights: A file is absent or differs from its card.

    Example:
        >>> pair = load_pair("clip2")
        >>> pair.similarity(torch.zeros(1, 3, 64, 64), ["smiling glasses"]).shape
        torch.Size([1])
    """
    if name not in PAIRS:
        raise unknown("text-image pair", name, PAIRS)
    return load_network(name, ARCHITECTURES, device)


def words_of(name: str) -> tuple[str, ...]:
    """Return the words that a text-image pair knows; no network is loaded.

    Args:
        name: ``"clip1"`` or ``"clip2"``.

    Raises:
        BadInput: Unknown name.
        MissingWeights: A file is absent or differs from its card.

    Example:
        >>> "smiling" in words_of("clip2")
        True
    """
    if name not in PAIRS:
        raise unknown("text-image pair", name, PAIRS)
    return tuple(checked_config(name)["words"])
