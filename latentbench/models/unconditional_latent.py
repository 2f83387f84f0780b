"""Unconditional latent diffusion: a `UNet2DModel` on the latents of a `VQModel`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Name, Positive, Steps, TimeNodes
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.types import Space


class UnconditionalLatentDiffusion(PixelDiffusion):
    """A latent model without prompts, in the folder layout of `LDMPipeline`.

    Source: "High-Resolution Image Synthesis with Latent Diffusion Models", the VQ-regularised
    variant: the denoiser works on latents before quantisation, the decoder quantises them. So
    z_0 is encode's output, scaled.

    Args:
        path: a local folder or a hub id.
        steps: default number of sampling steps.
        scaling_factor: what latents are multiplied by for the denoiser; None takes it from the
            autoencoder's config. The published checkpoint is older than that entry and was trained
            with 1, while `LDMPipeline` divides by the entry's default, 0.18215 (diffusers, issue
            6725).
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.

    Example:
        ``UnconditionalLatentDiffusion(path="/data/ldm", scaling_factor=1.0)``
    """

    spaces: ClassVar[frozenset[Space]] = PixelDiffusion.spaces | {Space.VAE}

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps = 50,
        scaling_factor: Positive | None = None,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, time_nodes=time_nodes, dtype=dtype, device=device)
        self.vae: Any = self.component("diffusers.VQModel", "vqvae")
        own = float(self.vae.config.scaling_factor)
        self.scaling_factor = own if scaling_factor is None else scaling_factor
        side = self.image_size
        self.latent_shape = (int(self.network.config.in_channels), side, side)
        self.image_size = side * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def networks(self) -> Sequence[nn.Module]:
        """Return U-Net and autoencoder."""
        return (self.network, self.vae)

    def tunable(self) -> Mapping[str, nn.Module]:
        """Return the denoiser and the autoencoder's decoder."""
        return {**super().tunable(), "decoder": self.vae.decoder}

    def settings(self) -> tuple[Any, ...]:
        """Return what changes an image besides weights and schedule."""
        return (*super().settings(), self.scaling_factor)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hz wz"]:
        """Return the scaled latents before quantisation."""
        self.check_images(images)
        latents = self.vae.encode(images.to(self.device, self.dtype)).latents
        return latents.float() * self.scaling_factor

    def decode(self, latent: Float[Tensor, "b c hz wz"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images of quantised latents, differentiable (straight through)."""
        z = latent / self.scaling_factor
        return self.vae.decode(z.to(self.dtype)).sample.float()
