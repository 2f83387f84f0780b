"""InfoDiffusion: a diffusion autoencoder whose codes are made to follow their prior."""

from collections.abc import Sequence
from typing import Annotated

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Dtype, Name, Steps, TimeNodes, between
from latentbench.content import content_hash
from latentbench.model import Condition
from latentbench.models.convolutions import ImageEncoder
from latentbench.models.semantic import EncodedDiffusion, code_projection

LEAST, MOST = -12.0, 6.0  # log variance of a code


class GaussianEncoder(ModelMixin, ConfigMixin):
    """Image -> q(z | x), and z -> what the U-Net adds to its time embedding.

    Args:
        image_size: pixels per side.
        channels: width of each block, fine to coarse.
        code: length of z.
        embedding: length of the U-Net's time embedding.
        stochastic: q is a diagonal Gaussian; else it is a point.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 32,
        channels: Sequence[int] = (24, 48, 72),
        code: int = 64,
        embedding: int = 96,
        stochastic: bool = False,
    ) -> None:
        super().__init__()
        self.code = code
        self.encoder = ImageEncoder(image_size, channels, 2 * code if stochastic else code)
        self.projection = code_projection(code, embedding)

    def posterior(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Return mean and log variance of a stochastic q(z | x)."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        return mean, log_variance.clamp(LEAST, MOST)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return the mean of q(z | x)."""
        return self.encoder(images)[:, : self.code]

    def embed(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Return what is added to the time embedding; 0 for a code of zeros (no code given)."""
        return self.projection(code)


class InfoDiffusion(EncodedDiffusion):
    """A denoiser and an encoder whose codes follow N(0, I), from which new images are made.

    Source: "InfoDiffusion: Representation Learning Using Information Maximizing Diffusion Models".
    An MMD penalty in training (`latentbench.zoo.recipes.code_losses`) draws codes to the prior.
    Sampling in two phases, as there: at timesteps of `told_below` and above the denoiser is given
    no code. Deviations: the code joins the time embedding; one denoiser does both phases (there: a
    second, unconditional one does the first).

    Args:
        path: name of an embedded model, a local folder, or a hub id, with the folders unet,
            scheduler and semantic_encoder.
        steps: default number of sampling steps.
        told_below: timestep below which the denoiser is given the code; 1000 gives it throughout,
            which inversion and edits need: what is decided above does not follow the code.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.
    """

    encoder_class = GaussianEncoder

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps = 50,
        told_below: Annotated[int, between(1, 1000)] = 1000,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, time_nodes=time_nodes, dtype=dtype, device=device)
        self.told_below = told_below

    def fingerprint(self) -> str:
        """Return a hash of all weights, the schedule and the settings."""
        return content_hash(super().fingerprint(), self.told_below)

    def draw_semantic(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the noise: the codes follow its distribution."""
        return noise

    def call(
        self, x: Float[Tensor, "r c h w"], timesteps: Tensor, condition: Condition
    ) -> Float[Tensor, "r c h w"]:
        """Return the U-Net's output under the codes of the rows that are late enough."""
        code = condition.tensors["semantic"]
        told = (timesteps < self.told_below).to(code.dtype)[:, None]
        return super().call(x, timesteps, Condition({"semantic": code * told}))
