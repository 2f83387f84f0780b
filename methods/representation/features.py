"""Codes of images in one of a model's spaces: what probes, spreads and comparisons read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Name, Share, Steps
from latentbench.editor import Editor
from latentbench.model import Convention, LatentModel
from latentbench.sampling.inversion import ddim_invert
from latentbench.types import Batch, Capability, Space
from methods.representation.noised_maps import noised_maps

PAPERS = {  # of the spaces besides h_t
    Space.NOISE: "Denoising Diffusion Implicit Models, equation 13",
    Space.VAE: "High-Resolution Image Synthesis with Latent Diffusion Models, section 3.1",
    Space.STYLE: "A Style-Based Generator Architecture for GANs, section 2",
    Space.SEMANTIC: "Diffusion Autoencoders, section 3",
}


class Features(Editor[Any]):
    """One vector per image in a space of the model: h_t, x_T, z_0, w or z_sem.

    Sources: "Emergent Correspondence from Image Diffusion", section 4 (x_t = alpha_t x_0 + sigma_t
    eps, one pass of the denoiser, activations averaged over noises); "Diffusion Models Beat GANs
    on Image Classification", section 3.2 (average pooling, then a linear probe). Deviations: the
    block is the middle one unless `layer` names another; the condition is empty; all images share
    the same noises, so that codes differ by their images alone, as comparisons of spaces ask.

    Args:
        space: "bottleneck" (h_t), "noise" (x_T by DDIM inversion), "vae" (z_0), "style" (w, by
            the generator's encoder) or "semantic" (z_sem).
        layer: feature layer that is read in place of h_t, as in model.feature_layers(); default:
            the middle block.
        noise_level: share of the sampler's steps that lie below the level at which h_t is read:
            1 is x_T, 0 the last level that the network receives.
        ensemble: number of noises that h_t is averaged over.
        pool: side of the grid that h_t is averaged to.
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while x_T is inverted: "matched", or "next"
            as diffusers' DDIMInverseScheduler has it.

    Example:
        >>> editor = Features(noise_level=0.1)  # editor.represent(batch) is [b, channels]
    """

    paper = "Emergent Correspondence from Image Diffusion, section 4"
    version = 2
    scope = "image"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"represent": frozenset()}
    families = (LatentModel,)

    def __init__(
        self,
        *,
        space: Literal["bottleneck", "noise", "vae", "style", "semantic"] = "bottleneck",
        layer: Name | None = None,
        noise_level: Share = 0.1,
        ensemble: Count = 1,
        pool: Count = 1,
        steps: Steps | None = None,
        convention: Convention = "matched",
    ) -> None:
        self.space, self.noise_level, self.steps = Space(space), noise_level, steps
        self.layer, self.ensemble, self.pool = layer, ensemble, pool
        self.convention: Convention = convention

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return the paper that the configured space is of."""
        space = Space(config.get("space", "bottleneck"))
        return PAPERS.get(space) or super().paper_of(config)

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return the configured space; x_T takes a sampler that can be inverted."""
        del verbs
        space = Space(config.get("space", "bottleneck"))
        inverted = {Space.NOISE_MAPS} if space is Space.NOISE else frozenset()
        return frozenset({space} | inverted), frozenset()

    def represent(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return each image's code in the configured space."""
        read: dict[Space, Callable[[Batch], Tensor]] = {
            Space.BOTTLENECK: self._bottleneck,
            Space.NOISE: self._noise,
            Space.VAE: self._clean,
        }
        return read.get(self.space, self._code)(batch).flatten(1)

    def _clean(self, batch: Batch) -> Tensor:
        return self.model.encode(batch.images)

    def _code(self, batch: Batch) -> Tensor:
        return self.model.code_of(batch.images).parts[self.space]

    def _noise(self, batch: Batch) -> Tensor:
        return ddim_invert(
            self.model, batch, self.cache, steps=self.steps, convention=self.convention
        )

    def _bottleneck(self, batch: Batch) -> Tensor:
        names = [f"noise {k}" for k in range(self.ensemble)]
        (h,) = noised_maps(
            self.model,
            self.model.encode(batch.images),
            self.streams.normal("features", names, self.model.latent_shape),
            layers=() if self.layer is None else (self.layer,),
            noise_level=self.noise_level,
            steps=self.steps,
        ).values()
        return F.adaptive_avg_pool2d(h, self.pool)
