"""What denoisers that take one vector per image share: DiffAE and its kin, DiffuseVAE."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Name, Steps, TimeNodes
from latentbench.model import Condition
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.streams import Streams
from latentbench.types import Latent, Space


class SemanticDiffusion(PixelDiffusion):
    """A pixel denoiser that takes a code z_sem of the image.

    The code travels as a `Condition`, so terms, guidance, gradients and interpolation treat it as
    they treat a prompt. The empty condition is a code of zeros, the mean of all codes.
    """

    spaces: ClassVar[frozenset[Space]] = PixelDiffusion.spaces | {Space.SEMANTIC}

    code_size: int  # length of z_sem

    @abstractmethod
    def encode_semantic(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return z_sem of images, about 0 on average with a spread of 1; differentiable."""

    @abstractmethod
    def draw_semantic(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the codes that the prior makes of standard normal noise."""

    def semantic_condition(self, code: Float[Tensor, "b d"]) -> Condition:
        """Return the condition that gives the denoiser these codes."""
        return Condition({"semantic": code.to(self.device)})

    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the condition of codes of zeros; prompts are refused."""
        super().condition(prompts, rows)
        return self.semantic_condition(torch.zeros(rows, self.code_size))

    def code_of(self, images: Float[Tensor, "b 3 h w"]) -> Latent:
        """Return z_sem of images."""
        return Latent({Space.SEMANTIC: self.encode_semantic(images.to(self.device))})

    def condition_of(self, latent: Latent) -> Condition:
        """Return the condition of the latent's code; the empty one where it has none."""
        code = latent.parts.get(Space.SEMANTIC)
        return super().condition_of(latent) if code is None else self.semantic_condition(code)

    def prior(self, streams: Streams, ids: Sequence[str]) -> Latent:
        """Return x_T and a code of the prior, one per id."""
        noise = streams.normal("prior/semantic", ids, (self.code_size,), self.device)
        parts = super().prior(streams, ids).parts
        return Latent({**parts, Space.SEMANTIC: self.draw_semantic(noise)})


class EncodedDiffusion(SemanticDiffusion):
    """A denoiser with a trained encoder; what it embeds of z_sem joins the time embedding.

    Args:
        path: name of an embedded model, a local folder, or a hub id, with the folders unet,
            scheduler and semantic_encoder.
        steps: default number of sampling steps.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.
    """

    encoder_class: ClassVar[type[nn.Module]]  # with `encode`, `embed` and the length `code`

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps = 50,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, time_nodes=time_nodes, dtype=dtype, device=device)
        self.semantic_encoder: Any = self.component(self.encoder_class, "semantic_encoder")
        self.code_size = int(self.semantic_encoder.code)

    def networks(self) -> Sequence[nn.Module]:
        """Return denoiser and encoder."""
        return (self.network, self.semantic_encoder)

    def encode_semantic(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return z_sem; differentiable."""
        self.check_images(images)
        return self.semantic_encoder.encode(images.to(self.device, self.dtype)).float()

    def call(
        self, x: Float[Tensor, "r c h w"], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r c h w"]:
        """Return the U-Net's output under the embedded codes."""
        embedded = self.semantic_encoder.embed(condition.tensors["semantic"])
        return super().call(x, timesteps, Condition({"class_labels": embedded}))


def code_projection(code: int, embedding: int) -> nn.Sequential:
    """Return layers from z_sem to what joins the time embedding; they give 0 as they start.

    Without biases, so that a code of zeros (no code given) always gives 0.
    """
    last = nn.Linear(embedding, embedding, bias=False)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Linear(code, embedding, bias=False), nn.SiLU(), last)
