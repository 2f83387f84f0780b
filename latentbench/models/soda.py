"""SODA: a diffusion autoencoder that reads one view and draws another, with a code per layer."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Bool, Float
from torch import Tensor, nn

from latentbench.errors import BadInput
from latentbench.models.convolutions import ImageEncoder
from latentbench.models.semantic import EncodedDiffusion


class SegmentedEncoder(ModelMixin, ConfigMixin):
    """Image -> z with mean 0 and spread 1 over the data, one segment per layer of the U-Net.

    Args:
        image_size: pixels per side.
        channels: width of each block, fine to coarse.
        layers: residual layers of the U-Net.
        segment: numbers that each of them receives.
        time: length of the time embedding proper, behind which the U-Net's embedding holds z.
        embedding: length of the U-Net's embedding; zeros fill it up.

    Raises:
        BadInput: an embedding too short for the time and all segments.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 32,
        channels: Sequence[int] = (24, 48, 72),
        layers: int = 11,
        segment: int = 8,
        time: int = 96,
        embedding: int = 192,
    ) -> None:
        super().__init__()
        self.code, self.segment, self.time = layers * segment, segment, time
        self.room = embedding - time - self.code  # behind z
        if self.room < 0:
            raise BadInput(
                f"an embedding of {embedding} numbers has no room for {time} of the time and "
                f"{layers} segments of {segment}; make it {time + self.code} or longer"
            )
        self.encoder = ImageEncoder(image_size, channels, self.code)
        self.normalise = nn.BatchNorm1d(self.code, affine=False)
        self.register_buffer("root", torch.eye(self.code))  # of the codes' covariance

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return z, normalised."""
        return self.normalise(self.encoder(images))

    def embed(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Return what is added to the U-Net's embedding: z behind zeros for the time."""
        return F.pad(code, (self.time, self.room))


def modulations(unet: Any) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the linear layer by which each residual layer reads the embedding, as they run."""
    for part in ("down_blocks", "mid_block", "up_blocks"):
        for name, layer in unet.get_submodule(part).named_modules():
            if name.endswith("time_emb_proj"):
                yield f"{part}.{name}", layer


def own_segment(layer: nn.Linear, number: int, time: int, segment: int) -> Bool[Tensor, "c e"]:
    """Return which weights of a layer read the time or the layer's own segment of z."""
    place = torch.arange(layer.in_features) - time
    reads = (place < 0) | (place // segment == number)
    return reads.expand(layer.weight.shape)


class SODA(EncodedDiffusion):
    """A denoiser of one view under the code of another; each layer reads a segment of its own.

    Source: "SODA: Bottleneck Diffusion Models for Representation Learning". The U-Net's embedding
    is the time's with z behind it, and what a layer reads of other layers' segments has weight 0
    (layer modulation). The source draws no codes; here they are drawn from a Gaussian with the
    covariance that they have on the data.

    Deviations: a segment shifts a layer's maps (there: scales them too), together with what the
    time's own layers add to it; linear noise schedule (there: inverted cosine).

    Args:
        path: name of an embedded model, a local folder, or a hub id, with the folders unet,
            scheduler and semantic_encoder.
        steps: default number of sampling steps.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.
    """

    encoder_class = SegmentedEncoder

    def draw_semantic(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return codes with the covariance of those of the data."""
        root = self.semantic_encoder.root
        return (noise.to(root) @ root.T).float()
