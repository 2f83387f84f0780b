"""Diffusion autoencoders: an encoder to one vector per image, and a denoiser that takes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import Float, Int
from torch import Tensor, nn

from latentbench.bounds import Dtype, Name, Steps, TimeNodes
from latentbench.content import content_hash
from latentbench.models.convolutions import ImageEncoder
from latentbench.models.semantic import EncodedDiffusion, code_projection
from latentbench.parameterization import split_prediction, transition


class SemanticEncoder(ModelMixin, ConfigMixin):
    """Image -> z_sem with mean 0 and spread 1 over the data, and z_sem -> what the U-Net adds.

    Args:
        image_size: pixels per side.
        channels: width of each block, fine to coarse.
        code: length of z_sem.
        embedding: length of the U-Net's time embedding, to which z_sem is added.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 32,
        channels: Sequence[int] = (32, 64, 96),
        code: int = 64,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        self.code = code
        self.encoder = ImageEncoder(image_size, channels, code)
        self.normalise = nn.BatchNorm1d(code, affine=False)
        self.projection = code_projection(code, embedding)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Return z_sem, normalised."""
        return self.normalise(self.encoder(images))

    def embed(self, code: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """Return what is added to the time embedding; 0 for a code of zeros (no code given)."""
        return self.projection(code)


class CodePrior(ModelMixin, ConfigMixin):
    """Denoiser of vectors: a perceptron that sees its input at every layer.

    "Diffusion Autoencoders", appendix A, with fewer and narrower layers.

    Args:
        code: length of the vector.
        width: width of the hidden layers.
        depth: number of hidden layers.
    """

    @register_to_config
    def __init__(self, code: int = 64, width: int = 192, depth: int = 5) -> None:
        super().__init__()
        self.features = width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        befores = [code, *[width + code] * (depth - 1)]
        self.layers = nn.ModuleList(nn.Linear(before, width) for before in befores)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in befores)
        self.head = nn.Linear(width + code, code)

    def forward(
        self, z: Float[Tensor, "b d"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b d"]:
        """Return the prediction that the scheduler's config names."""
        time = self.time(get_timestep_embedding(timesteps, self.features).to(z.dtype))
        h = z
        for layer, norm in zip(self.layers, self.norms, strict=True):
            h = F.silu(norm(layer(h)) * (1 + time))
            h = torch.cat([h, z], 1)
        return self.head(h)


class DiffusionAutoencoder(EncodedDiffusion):
    """An encoder to z_sem, a denoiser that takes z_sem, and a prior of z_sem.

    Source: "Diffusion Autoencoders: Toward a Meaningful and Decodable Representation", sections 3
    and 4. z_sem is normalised over the data throughout. The stochastic code x_T is DDIM inversion
    under z_sem. Deviations: z_sem is added to the time embedding (there: it scales each block's
    maps); the codes' prior is sampled by DDIM from the noise of the image's id.

    Args:
        path: name of an embedded model, a local folder, or a hub id, with the folders unet,
            scheduler, semantic_encoder and code_prior.
        steps: default number of sampling steps.
        prior_steps: sampling steps of the codes' prior.
        time_nodes: of blocks of early times; see `CheckpointDiffusion`.
        dtype: "float32", "float16" or "bfloat16".
        device: where the networks run.

    Example:
        >>> DiffusionAutoencoder(path="faces_diffae", steps=50).latent_shape
        (3, 32, 32)
    """

    encoder_class = SemanticEncoder

    def __init__(
        self,
        *,
        path: Name,
        steps: Steps = 50,
        prior_steps: Steps = 50,
        time_nodes: TimeNodes | None = None,
        dtype: Dtype = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(path=path, steps=steps, time_nodes=time_nodes, dtype=dtype, device=device)
        self.prior_steps = prior_steps
        self.code_prior: Any = self.component(CodePrior, "code_prior")

    @classmethod
    def check(cls, settings: Mapping[str, Any], steps: int | None) -> None:
        """Refuse more steps of the sampler or of the prior than the schedule has room for."""
        super().check(settings, steps)
        told_all = {**settings, "time_nodes": None}  # the prior, which is another network
        super().check(told_all, settings["prior_steps"])

    def networks(self) -> Sequence[nn.Module]:
        """Return denoiser, encoder and prior."""
        return (*super().networks(), self.code_prior)

    def fingerprint(self) -> str:
        """Return a hash of all weights, the schedule and the settings."""
        return content_hash(super().fingerprint(), self.prior_steps)

    def draw_semantic(self, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return codes by deterministic DDIM in the space of z_sem."""
        z, grid = noise.to(self.device), self.grid(self.prior_steps)
        for i in range(grid.n):
            alpha, sigma = grid.levels(i, z)
            t = torch.full((len(z),), int(grid.timesteps[i]), device=z.device)
            out = self.code_prior(z.to(self.dtype), t).float()
            x0, eps = split_prediction(self.prediction_type, out, z, alpha, sigma)
            z, _ = transition(grid, i, x0, eps, 0.0)
        return z
