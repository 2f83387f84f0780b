"""Denoising diffusion on pixels: a diffusers `UNet2DModel` with its scheduler config."""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Dtype, Name, Steps, TimeNodes
from latentbench.errors import Incompatible
from latentbench.model import Condition
from latentbench.models.unet import UNetDiffusion
from latentbench.types import Space


class PixelDiffusion(UNetDiffusion):
    """An unconditional pixel model, in the folder layout of `DDPMPipeline`.

    Source: "Denoising Diffusion Probabilistic Models"; any prediction type. The latent z_0 is the
    image itself. Clipping is off: it would make the sampler's map non-invertible.

    Example:
        >>> PixelDiffusion(path="faces_ddpm", steps=50).latent_shape
        (3, 32, 32)
    """

    spaces: ClassVar[frozenset[Space]] = frozenset(
        {Space.NOISE, Space.NOISE_MAPS, Space.BOTTLENECK, Space.ATTENTION, Space.WEIGHTS}
    )

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
        self.network = self.component("diffusers.UNet2DModel", "unet")
        self.image_size = int(self.network.config.sample_size)
        self.latent_shape = (3, self.image_size, self.image_size)

    def condition(self, prompts: Sequence[str] | None, rows: int) -> Condition:
        """Return the empty condition; prompts are refused."""
        if prompts is not None:
            raise Incompatible(f"{self.path} takes no prompts, got {list(prompts)[:2]}")
        return Condition()

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return the images: pixels are the latent."""
        self.check_images(images)
        return images.to(self.device)

    def decode(self, latent: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return the latent: pixels are the image."""
        return latent
