"""What latent models share: the autoencoder between images and clean latents."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.models.checkpoint import CheckpointDiffusion
from latentbench.models.components import resolve


class AutoencodedDiffusion(CheckpointDiffusion):
    """A denoiser that works on the latents of a diffusers autoencoder.

    z_0 is the mode of the posterior, shifted and scaled by the autoencoder's own config. One that
    overflows in float16, as its config says (`force_upcast`), stays in float32.
    """

    vae: Any

    def load_autoencoder(self, path: str | None = None) -> None:
        """Load the checkpoint's own autoencoder, or that of another model with the same latents."""
        folder = None if path is None else resolve(path)
        self.vae = self.component("diffusers.AutoencoderKL", "vae", folder)
        if self.vae.config.force_upcast and self.dtype == torch.float16:
            self.vae.float()  # it would overflow

    def tunable(self) -> Mapping[str, nn.Module]:
        """Return the denoiser and the autoencoder's decoder."""
        return {**super().tunable(), "decoder": self.vae.decoder}

    def image_size_of(self, side: int) -> int:
        """Return the pixels per side of latents with this side."""
        return side * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hz wz"]:
        """Return the scaled mode of the autoencoder's posterior."""
        self.check_images(images)
        mode = self.vae.encode(images.to(self.device, self.vae.dtype)).latent_dist.mode().float()
        mean, scale = self._statistics()
        return (mode - mean) * scale

    def decode(self, latent: Float[Tensor, "b c hz wz"]) -> Float[Tensor, "b 3 h w"]:
        """Return the decoded images, differentiable, not clamped."""
        mean, scale = self._statistics()
        z = latent / scale + mean
        return self.vae.decode(z.to(self.vae.dtype)).sample.float()

    def _statistics(self) -> tuple[Any, Any]:
        """Return what is taken from raw latents, and what they are then multiplied by."""
        config = self.vae.config
        if config.latents_mean is None:
            return config.shift_factor or 0.0, config.scaling_factor
        mean, std = (
            torch.tensor(values, device=self.device).reshape(1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, config.scaling_factor / std
