"""`dists`: deep image structure and texture similarity."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics.functional.image.dists import _PATH_WEIGHT_DISTS, L2pooling
from torchvision.models.vgg import cfgs, make_layers

from latentbench.batching import map_batches
from latentbench.metric import Figure, Surroundings
from metrics.networks.pixels import IMAGENET, normalised
from metrics.networks.reader import BATCH
from metrics.pairs.lpips import VGG16
from metrics.pairs.pairwise import Pairwise, References

POOLED = (4, 9, 16, 23)  # VGG's max-pooling layers, replaced by smooth pooling
TAPS = (3, 8, 15, 22, 29)  # layers that are compared, besides the image itself
CHANNELS = (3, 64, 128, 256, 512, 512)
TINY = 1e-6  # c1 and c2


class DISTS(Pairwise):
    """Deep image structure and texture similarity; 0 for equal images.

    Source: Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity",
    equations 5 to 7. Pooling layer and the learned weights alpha and beta are those of
    torchmetrics, whose class cannot be built without a download.

    Args:
        against: which images; each gives a column.

    Example:
        >>> list(DISTS().figures)
        ['dists']
    """

    name = "dists"
    figure = Figure("deep image structure and texture similarity", low=0.0, higher_is_better=False)
    source = "Image Quality Assessment: Unifying Structure and Texture Similarity, equations 5-7"
    weights = (VGG16,)

    def __init__(self, *, against: References = ("truths",)) -> None:
        super().__init__(against=against)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the trunk; its hash is checked before the file is opened."""
        super().prepare(surroundings)
        trunk = VGG16.state(surroundings.weights_dir)
        self.network = StructureAndTexture(trunk).to(surroundings.device)

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the dissimilarity of each pair."""
        return map_batches(self._compare_pairs, torch.stack([outputs, targets], 1), BATCH)

    def _compare_pairs(self, pairs: Float[Tensor, "n 2 3 h w"]) -> Float[Tensor, " n"]:
        a, b = ((pairs.to(self.surroundings.device) + 1) / 2).unbind(1)
        return self.network(a, b).cpu()


class StructureAndTexture(nn.Module):
    """VGG-16 with smooth pooling, and the learned weights of its channels.

    Args:
        trunk: a state dict of torchvision's VGG-16.
    """

    def __init__(self, trunk: Mapping[str, Any]) -> None:
        super().__init__()
        layers = make_layers(cfgs["D"], batch_norm=False)[: TAPS[-1] + 1]
        layers.load_state_dict({name: trunk[f"features.{name}"] for name in layers.state_dict()})
        for place, channels in zip(POOLED, CHANNELS[1:], strict=False):
            layers[place] = L2pooling(channels=channels)
        self.layers = layers
        learned = torch.load(_PATH_WEIGHT_DISTS, map_location="cpu", weights_only=True)
        total = learned["alpha"].sum() + learned["beta"].sum()
        self.alpha = nn.Parameter(learned["alpha"] / total)
        self.beta = nn.Parameter(learned["beta"] / total)
        self.eval().requires_grad_(False)

    def forward(
        self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the dissimilarity of images in [0, 1]."""
        similarity = torch.zeros(len(a), device=a.device)
        weights = zip(self.alpha.split(CHANNELS, 1), self.beta.split(CHANNELS, 1), strict=True)
        for (alpha, beta), x, y in zip(weights, self.maps(a), self.maps(b), strict=True):
            mean_x, mean_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
            texture = (2 * mean_x * mean_y + TINY) / (mean_x**2 + mean_y**2 + TINY)
            spread = x.var((2, 3), correction=0) + y.var((2, 3), correction=0)
            covariance = (x * y).mean((2, 3)) - (mean_x * mean_y)[..., 0, 0]
            structure = (2 * covariance + TINY) / (spread + TINY)
            similarity = similarity + (alpha * texture).sum((1, 2, 3))
            similarity = similarity + (beta[..., 0, 0] * structure).sum(1)
        return 1 - similarity

    def maps(self, images: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Return the image itself and the maps that are compared."""
        found, x = [images], normalised(images, *IMAGENET)
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place in TAPS:
                found.append(x)
        return found
