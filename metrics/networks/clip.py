"""The published CLIP: embeddings of images and captions in one space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import safetensors.torch
import torch
from jaxtyping import Float
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel

from latentbench.batching import map_batches
from latentbench.metric import Surroundings
from latentbench.zoo.published_weights import PublishedWeights
from metrics.networks.pixels import as_bytes, each_pil, normalised
from metrics.networks.reader import BATCH

SIZE, TOKENS, END = 224, 77, 49407  # pixels, tokens of a caption, the token that ends one
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HUB = "https://huggingface.co/openai/"
TOKENIZER = PublishedWeights(
    "clip-tokenizer.json",
    "a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4",
    HUB + "clip-vit-large-patch14/resolve/main/tokenizer.json",
)
Net = Literal["vit_l14", "vit_b32"]


@dataclass(frozen=True)
class Architecture:
    """One published CLIP.

    Args:
        weights: its file.
        vision: width, layers, heads and patch of the image tower.
        text: width and heads of the text tower, which has 12 layers.
        embedding: dimensions of the common space.
    """

    weights: PublishedWeights
    vision: tuple[int, int, int, int]
    text: tuple[int, int]
    embedding: int

    def config(self) -> CLIPConfig:
        """Return transformers' configuration."""
        width, layers, heads, patch = self.vision
        vision = _tower(width, layers, heads) | {"patch_size": patch, "image_size": SIZE}
        text = _tower(self.text[0], 12, self.text[1]) | {"eos_token_id": END}
        return CLIPConfig(vision_config=vision, text_config=text, projection_dim=self.embedding)


NETS: Mapping[Net, Architecture] = {
    "vit_l14": Architecture(
        PublishedWeights(
            "clip-vit-large-patch14.safetensors",
            "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
            HUB + "clip-vit-large-patch14/resolve/main/model.safetensors",
        ),
        (1024, 24, 16, 14), (768, 12), 768,
    ),
    "vit_b32": Architecture(
        PublishedWeights(
            "clip-vit-base-patch32.bin",
            "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
            HUB + "clip-vit-base-patch32/resolve/main/pytorch_model.bin",
        ),
        (768, 12, 12, 32), (512, 8), 512,
    ),
}  # fmt: skip


@runtime_checkable
class TextImageEncoder(Protocol):
    """What brings images and captions into one space: unit embeddings."""

    def image(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the embeddings of images in [-1, 1]."""
        ...

    def text(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Return the embeddings of captions."""
        ...


class CLIP:
    """A published CLIP with the preparation of its authors.

    Images are rounded to 8 bits, their short side is resized to 224 pixels by PIL's bicubic
    filter, and the middle is cropped; captions are cut to 77 tokens.

    Args:
        network: transformers' network.
        tokenizer: captions to tokens.
        digest: hash of the weights.
        device: where it runs.
    """

    name = ""

    def __init__(
        self, network: CLIPModel, tokenizer: Tokenizer, digest: str, device: torch.device
    ) -> None:
        self.network: Any = network  # its own `to` is typed too narrowly
        self.network.eval().requires_grad_(False).to(device)
        self.tokenizer, self.digest, self.device = tokenizer, digest, device
        tokenizer.enable_truncation(TOKENS)
        tokenizer.enable_padding(pad_id=END, length=TOKENS)

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the projected image embeddings, not scaled to unit length."""
        found = map_batches(self._read, as_bytes(images).flatten(0, -4), BATCH)
        return found.unflatten(0, images.shape[:-3])

    def image(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the image embeddings."""
        return normalize(self.features(images), dim=-1)

    def text(self, captions: Sequence[str]) -> Float[Tensor, "b d"]:
        """Return the caption embeddings."""
        rows = [found.ids for found in self.tokenizer.encode_batch(list(captions))]
        return normalize(map_batches(self._read_text, torch.tensor(rows), BATCH), dim=-1)

    def _read(self, images: Tensor) -> Float[Tensor, "b d"]:
        pixels = normalised(each_pil(images, middle).float() / 255, MEAN, STD)
        return _pooled(self.network.get_image_features(pixels.to(self.device)))

    def _read_text(self, tokens: Tensor) -> Float[Tensor, "b d"]:
        return _pooled(self.network.get_text_features(tokens.to(self.device)))


def weights_of(net: Net) -> tuple[PublishedWeights, PublishedWeights]:
    """Return the files that a net needs."""
    return NETS[net].weights, TOKENIZER


def load_clip(net: Net, surroundings: Surroundings) -> CLIP:
    """Return a published CLIP; hashes are checked before a file is opened."""
    weights, folder = NETS[net].weights, surroundings.weights_dir
    if weights.file.endswith(".safetensors"):
        state = safetensors.torch.load_file(weights.path(folder))
    else:
        state = weights.state(folder)
    tokenizer = Tokenizer.from_file(str(TOKENIZER.path(folder)))
    return CLIP(clip_with(net, state), tokenizer, weights.digest, surroundings.device)


def clip_with(net: Net, state: Mapping[str, Any]) -> CLIPModel:
    """Return transformers' network with these weights, named as in the published files."""
    network = CLIPModel(NETS[net].config())
    network.load_state_dict({k: v for k, v in state.items() if not k.endswith("position_ids")})
    return network


def middle(image: Image.Image) -> Image.Image:
    """Return the middle square of an image whose short side is resized to 224 pixels."""
    short = min(image.size)
    wide, high = (int(SIZE * side / short) for side in image.size)
    left, top = round((wide - SIZE) / 2), round((high - SIZE) / 2)
    resized = image.resize((wide, high), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + SIZE, top + SIZE))


def _tower(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_act": "quick_gelu",
    }


def _pooled(found: Any) -> Tensor:
    """Return the embedding: transformers 5 gives an object, 4 gave the tensor."""
    return (found if isinstance(found, Tensor) else found.pooler_output).cpu()
