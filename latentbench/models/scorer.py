"""Scorers: how well an image fits a caption, for methods. Never a judge of what methods make."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from latentbench.bounds import Dtype, Name
from latentbench.content import content_hash
from latentbench.errors import BadInput
from latentbench.models.components import load_component, load_network
from latentbench.models.metered import MeteredNetwork, weights_hash


class Scorer(MeteredNetwork):
    """Brings images and captions into one space, so that their cosine says how well they fit.

    A method that needs one is handed it by the runner. Embeddings of images are differentiable
    with respect to the images.
    """

    @abstractmethod
    def read_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return embeddings of any length; images are square RGB in [-1, 1]."""

    @abstractmethod
    def read_text(self, captions: Sequence[str]) -> Float[Tensor, "c d"]:
        """Return embeddings of any length."""

    def image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return unit embeddings of square RGB images in [-1, 1], of any size."""
        return F.normalize(self.counted(self.read_image(images.to(self.device))), dim=1)

    def text(self, captions: Sequence[str]) -> Float[Tensor, "c d"]:
        """Return unit embeddings of captions."""
        return F.normalize(self.read_text(captions), dim=1)

    def similarity(
        self, images: Float[Tensor, "b 3 h w"], captions: Sequence[str]
    ) -> Float[Tensor, " b"]:
        """Return the cosine of each image with its own caption, in -1..1.

        Raises:
            BadInput: Not one caption per image.
        """
        if len(captions) != len(images):
            raise BadInput(f"got {len(captions)} captions for {len(images)} images; give one each")
        return (self.image(images) * self.text(captions)).sum(1)


class PublishedScorer(Scorer):
    """A published CLIP, or another network of transformers with the same two towers.

    Images are resized and normalised as the checkpoint's `preprocessor_config.json` says, by a
    differentiable bicubic filter; unlike its own preparation this does not round to 8 bits.
    Captions longer than the text tower reads are cut.

    Args:
        path: a local folder, or a hub id.
        dtype: "float32", "float16" or "bfloat16".
        device: where it runs.

    Raises:
        MissingWeights: no such folder, or nothing to fetch it with; only safetensors are read.

    Example:
        >>> scorer = PublishedScorer(path="openai/clip-vit-large-patch14")  # doctest: +SKIP
        >>> scorer.similarity(images, ["a smiling face"] * len(images))  # doctest: +SKIP
    """

    def __init__(self, *, path: Name, dtype: Dtype = "float32", device: str = "cpu") -> None:
        super().__init__(path, device)
        self.dtype = getattr(torch, dtype)
        self.network: Any = load_published(AutoModel, path, self.dtype, self.device)
        self.tokenizer: Any = load_component(AutoTokenizer, path, "")
        self.vocabulary = content_hash(self.tokenizer.backend_tokenizer.to_str())
        self.preparation = Preparation(path)
        self.tokens = self.network.config.text_config.max_position_embeddings

    def fingerprint(self) -> str:
        """Return a hash of weights, preparation, vocabulary and settings."""
        return content_hash(
            self.version, str(self.dtype), self.preparation.settings(),
            self.vocabulary, weights_hash(self.network),
        )  # fmt: skip

    def read_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the projected output of the image tower."""
        pixels = self.preparation(images).to(self.dtype)
        return _pooled(self.network.get_image_features(pixel_values=pixels))

    def read_text(self, captions: Sequence[str]) -> Float[Tensor, "c d"]:
        """Return the projected output of the text tower."""
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=self.tokens,
            return_tensors="pt",
        )  # fmt: skip
        return _pooled(self.network.get_text_features(**tokens.to(self.device)))


class Preparation:
    """Resizing, cropping and normalising as a published checkpoint asks, differentiable.

    Args:
        path: a local folder, or a hub id.
    """

    def __init__(self, path: str) -> None:
        asked: Any = load_component(AutoImageProcessor, path, "").to_dict()
        size, crop = asked["size"], asked.get("crop_size")
        self.size = int(size.get("shortest_edge") or size["height"])
        self.side = int(crop["height"]) if asked.get("do_center_crop") and crop else self.size
        self.mean, self.spread = asked["image_mean"], asked["image_std"]

    def settings(self) -> tuple[Any, ...]:
        """Return what decides a prepared image."""
        return self.size, self.side, self.mean, self.spread

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Return square RGB images in [-1, 1] as the network takes them."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(
                images, size=(self.size, self.size), mode="bicubic", antialias=True
            )
        edge = (self.size - self.side) // 2
        if edge:
            images = images[..., edge : edge + self.side, edge : edge + self.side]
        mean, spread = images.new_tensor([self.mean, self.spread])[:, :, None, None]
        return ((images.clamp(-1, 1) + 1) / 2 - mean) / spread


def load_published(cls: Any, path: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Return a frozen network of transformers, read from safetensors."""
    network = load_network(cls, path, "", dtype)
    return network.to(device).eval().requires_grad_(False)


def _pooled(found: Any) -> Float[Tensor, "b d"]:
    """Return the embedding: transformers 5 gives an object, 4 gave the tensor."""
    return (found if isinstance(found, Tensor) else found.pooler_output).float()
