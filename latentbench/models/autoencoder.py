"""What latent models share: the autoencoder between images and clean latents."""

from typing import Any

from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from latentbench.models.checkpoint import CheckpointDiffusion, resolve


class AutoencodedDiffusion(CheckpointDiffusion):
    """A denoiser that works on the latents of a diffusers autoencoder.

    z_0 is the mode of the posterior, shifted and scaled by the autoencoder's own config.
    """

    vae: Any

    def load_autoencoder(self, path: str | None = None) -> None:
        """Load the checkpoint's own autoencoder, or that of another model with the same latents."""
        folder = None if path is None else resolve(path)
        self.vae = self.component(AutoencoderKL, "vae", folder)

    def image_size_of(self, side: int) -> int:
        """Return the pixels per side of latents with this side."""
        return side * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        """Return the scaled mode of the autoencoder's posterior."""
        self.check_images(images)
        mode = self.vae.encode(images.to(self.device, self.dtype)).latent_dist.mode().float()
        return (mode - self._shift) * self.vae.config.scaling_factor

    def decode(self, latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return the decoded images, differentiable, not clamped."""
        z = latent / self.vae.config.scaling_factor + self._shift
        return self.vae.decode(z.to(self.dtype)).sample.float()

    @property
    def _shift(self) -> float:
        return self.vae.config.shift_factor or 0.0
