"""Dense features: what the denoiser's inner maps hold of each place of an image."""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Share, Steps
from latentbench.editor import Editor
from latentbench.model import Condition, DiffusionModel
from latentbench.sampling.loop import Recorder, denoise, guided, noise_to_level
from latentbench.types import Batch, Space


class DenseFeatures(Editor[DiffusionModel]):
    """Activations h_t of noised images, averaged over noises and not over places.

    Source: "Emergent Correspondence from Image Diffusion", section 4.2: x_t = alpha_t x_0 + sigma_t
    eps, one pass of the denoiser, features averaged over an ensemble of noises. Deviations: the
    layer is the middle block; the condition is empty; all images share the same noises.

    Args:
        noise_level: share of the sampler's steps below the level at which h_t is read; 1 is x_T.
        ensemble: number of noises.
        steps: sampling steps; default: the model's.

    Example:
        >>> method = DenseFeatures(ensemble=4)  # method.feature_maps(batch)["bottleneck"]
    """

    paper = "Emergent Correspondence from Image Diffusion, section 4.2"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "feature_maps": frozenset({Space.BOTTLENECK})
    }

    def __init__(
        self, *, noise_level: Share = 0.25, ensemble: Count = 4, steps: Steps | None = None
    ) -> None:
        self.noise_level, self.ensemble, self.steps = noise_level, ensemble, steps

    def feature_maps(self, batch: Batch) -> Mapping[str, Float[Tensor, "b d h w"]]:
        """Return the middle block's maps of each image."""
        names = [f"noise {k}" for k in range(self.ensemble)]
        draws = self.streams.normal("dense_features", names, self.model.latent_shape)
        x0 = self.model.encode(batch.images)
        total = sum(self._activations(x0, eps.to(x0).expand_as(x0)) for eps in draws)
        return {"bottleneck": total / self.ensemble}

    def _activations(self, x0: Tensor, eps: Tensor) -> Float[Tensor, "b d h w"]:
        model, grid = self.model, self.model.grid(self.steps)
        level = min(round((1 - self.noise_level) * grid.n), grid.n - 1)
        recorder = Recorder(bottleneck=True)
        terms = guided(model.condition(None, len(x0)), Condition(), 1.0)
        x = noise_to_level(grid, x0, eps, level)
        denoise(model, x, terms, grid=grid, level=level, interventions=[recorder])
        return recorder.h[level]
