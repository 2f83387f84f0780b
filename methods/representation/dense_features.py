"""Dense features: what the denoiser's inner maps hold of each place of an image."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Name, Share, Steps
from latentbench.editor import Editor
from latentbench.model import DiffusionModel
from latentbench.types import Batch, Space
from methods.representation.noised_maps import noised_maps


class DenseFeatures(Editor[DiffusionModel]):
    """Activations h_t of noised images, averaged over noises and not over places.

    Source: "Emergent Correspondence from Image Diffusion", section 4.2: x_t = alpha_t x_0 + sigma_t
    eps, one pass of the denoiser, features averaged over an ensemble of noises. Deviations: the
    layer is the middle block unless others are named; the condition is empty; all images share the
    same noises.

    Args:
        layers: feature layers, as in model.feature_layers(); default: the middle block.
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
        self,
        *,
        layers: Sequence[Name] | None = None,
        noise_level: Share = 0.25,
        ensemble: Count = 4,
        steps: Steps | None = None,
    ) -> None:
        self.layers = tuple(layers or ())
        self.noise_level, self.ensemble, self.steps = noise_level, ensemble, steps

    def feature_maps(self, batch: Batch) -> Mapping[str, Float[Tensor, "b d h w"]]:
        """Return the maps of each image by layer; "bottleneck" where no layer is named."""
        names = [f"noise {k}" for k in range(self.ensemble)]
        found = noised_maps(
            self.model,
            self.model.encode(batch.images),
            self.streams.normal("dense_features", names, self.model.latent_shape),
            layers=self.layers,
            noise_level=self.noise_level,
            steps=self.steps,
        )
        return found if self.layers else {"bottleneck": next(iter(found.values()))}
