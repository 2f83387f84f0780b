"""Codes of images in one of a model's spaces: what probes, spreads and comparisons read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Share, Steps
from latentbench.editor import Editor
from latentbench.model import Condition, DiffusionModel
from latentbench.models.push_forward import PushForward
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import Recorder, denoise, guided, noise_to_level
from latentbench.types import Batch, Capability, Space


class Features(Editor):
    """One vector per image in a space of the model: h_t, x_T, z_0, w or z_sem.

    Sources: "Emergent Correspondence from Image Diffusion", section 4 (x_t = alpha_t x_0 + sigma_t
    eps, one pass of the denoiser, activations averaged over noises); "Diffusion Models Beat GANs
    on Image Classification", section 3.2 (average pooling, then a linear probe). Deviations: the
    block is the middle one; the condition is empty; all images share the same noises, so that
    codes differ by their images alone, as comparisons of spaces ask.

    Args:
        space: "bottleneck" (h_t), "noise" (x_T by DDIM inversion), "vae" (z_0), "style" (w, by
            the generator's encoder) or "semantic" (z_sem).
        noise_level: share of the sampler's steps that lie below the level at which h_t is read:
            1 is x_T, 0 the last level that the network is told of.
        ensemble: number of noises that h_t is averaged over.
        pool: side of the grid that h_t is averaged to.
        steps: sampling steps; default: the model's.

    Example:
        >>> editor = Features(noise_level=0.1)  # editor.represent(batch) is [b, channels]
    """

    paper = "Emergent Correspondence from Image Diffusion, section 4"
    scope = "image"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"represent": frozenset()}
    families = (DiffusionModel, PushForward)
    model: Any

    def __init__(
        self,
        *,
        space: Literal["bottleneck", "noise", "vae", "style", "semantic"] = "bottleneck",
        noise_level: Share = 0.1,
        ensemble: Count = 1,
        pool: Count = 1,
        steps: Steps | None = None,
    ) -> None:
        self.space, self.noise_level, self.steps = Space(space), noise_level, steps
        self.ensemble, self.pool = ensemble, pool

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
            Space.NOISE: lambda b: ddim_invert(self.model, b, self.cache, steps=self.steps),
            Space.SEMANTIC: lambda b: self.model.encode_semantic(b.images.to(self.model.device)),
            Space.VAE: lambda b: self.model.encode(b.images),
            Space.STYLE: lambda b: self.model.encode(b.images),
        }
        return read[self.space](batch).flatten(1)

    def _bottleneck(self, batch: Batch) -> Tensor:
        x0 = self.model.encode(batch.images)
        draws = self.streams.normal("features", self._draws(), self.model.latent_shape)
        h = torch.stack([self._activations(x0, eps) for eps in draws]).mean(0)
        return F.adaptive_avg_pool2d(h, self.pool)

    def _activations(self, x0: Tensor, eps: Tensor) -> Float[Tensor, "b c h w"]:
        """Return h_t of noised images."""
        model, grid = self.model, self.model.grid(self.steps)
        level = min(round((1 - self.noise_level) * grid.n), grid.n - 1)
        x = noise_to_level(grid, x0, eps.to(x0).expand_as(x0), level)
        recorder = Recorder(bottleneck=True)
        terms = guided(model.condition(None, len(x)), Condition(), 1.0)
        denoise(model, x, terms, grid=grid, level=level, interventions=[recorder])
        return recorder.h[level]

    def _draws(self) -> list[str]:
        return [f"noise {k}" for k in range(self.ensemble)]
