"""Variational autoencoders with one vector per image, alone and under a denoiser that refines."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.bounds import Dtype, Name, Steps, TimeNodes
from latentbench.model import Condition
from latentbench.models.convolutions import ImageDecoder, ImageEncoder
from latentbench.models.push_forward import PushForward
from latentbench.models.semantic import SemanticDiffusion
from latentbench.types import Space


class VectorAutoencoder(ModelMixin, ConfigMixin):
    """Encoder to a diagonal Gaussian over vectors, decoder to images.

    Args:
        image_size: pixels per side.
        channels: width of each block, fine to coarse.
        code: length of the vector.
    """

    @register_to_config
    def __init__(
        self, image_size: int = 32, channels: Sequence[int] = (32, 64, 96), code: int = 64
    ) -> None:
        super().__init__()
        self.encoder = ImageEncoder(image_size, channels, 2 * code)
        self.decoder = ImageDecoder(image_size, channels, code)

    def posterior(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Return mean and log variance of q(z | x)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return mean, log_variance.clamp(-12, 6)

    def decode(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 h w"]:
        """Return the mean of p(x | z), not clamped."""
        return self.decoder(code)

    def sample(
        self, images: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """Return a draw of q(z | x)."""
        mean, log_variance = self.posterior(images)
        return mean + torch.exp(0.5 * log_variance) * noise


class VariationalAutoencoder(PushForward):
    """A VAE whose latent is one vector; the prior's noise is the code itself.

    Source: "Auto-Encoding Variational Bayes". `encode` gives the mean of the posterior.

    Example:
        >>> VariationalAutoencoder(path="faces_vae").latent_shape
        (64,)
    """

    spaces: ClassVar[frozenset[Space]] = frozenset({Space.NOISE, Space.VAE})
    code_space = Space.VAE

    def __init__(self, *, path: Name, dtype: Dtype = "float32", device: str = "cpu") -> None:
        super().__init__(path=path, dtype=dtype, device=device)
        self.vae: Any = self.component(VectorAutoencoder, "vae")
        self.image_size = int(self.vae.config.image_size)
        self.latent_shape = (int(self.vae.config.code),)

    def networks(self) -> Sequence[nn.Module]:
        """Return the autoencoder."""
        return (self.vae,)

    def tunable(self) -> Mapping[str, nn.Module]:
        """Return the decoder."""
        return {"decoder": self.vae.decoder}

    def push(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the noise: it is the code."""
        return noise.to(self.device)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the mean of q(z | x)."""
        self.check_images(images)
        return self.vae.posterior(images.to(self.device, self.dtype))[0].float()

    def decode(self, latent: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 h w"]:
        """Return the mean of p(x | z), differentiable, not clamped."""
        self.evaluations.forward += len(latent)
        return self.vae.decode(latent.to(self.dtype)).float()


class DiffuseVAE(SemanticDiffusion):
    """A denoiser that is shown a VAE's blurred decoding of the code and refines it.

    Source: "DiffuseVAE: Efficient, Controllable and High-Fidelity Generation from Low-Dimensional
    Latents", section 3, first form: the decoding is stacked onto x_t. The code is z of the VAE,
    its prior N(0, I). A code of zeros is the mean face, not the absence of one.

    Args:
        path: name of an embedded model, a local folder, or a hub id; holds the denoiser.
        vae: the same for the VAE.
        steps: default number of sampling steps.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.

    Example:
        >>> DiffuseVAE(path="faces_diffusevae", vae="faces_vae").image_size
        32
    """

    def __init__(
        self,
        *,
        path: Name,
        vae: Name,
        steps: Steps = 10,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, time_nodes=time_nodes, dtype=dtype, device=device)
        self.vae = VariationalAutoencoder(path=vae, dtype=dtype, device=device)
        (self.code_size,) = self.vae.latent_shape

    def networks(self) -> Sequence[nn.Module]:
        """Return denoiser and autoencoder."""
        return (self.network, *self.vae.networks())

    def encode_semantic(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the mean of q(z | x)."""
        return self.vae.encode(images)

    def draw_semantic(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the noise: it is the code."""
        return noise

    def call(
        self, x: Float[Tensor, "r c h w"], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r c h w"]:
        """Return the U-Net's output for x_t stacked on the decoded codes."""
        decoded = self.vae.decode(condition.tensors["semantic"]).to(x)
        return self.network(torch.cat([x, decoded], 1), timesteps).sample
