"""`ppl`: the published perceptual path length."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from latentbench.batching import map_batches
from latentbench.metric import Surroundings
from metrics.networks.reader import BATCH
from metrics.pairs.lpips import VGG16, load_lpips
from metrics.paths.path_length import PathLengthMetric

SIZE = 64  # pixels that images are resized to, as in torchmetrics


class PublishedPathLength(PathLengthMetric):
    """Perceptual path length with LPIPS (VGG-16) at 64 pixels, resized as in torchmetrics.

    Larger images are averaged over areas, smaller ones enlarged bilinearly. Figures of different
    steps eps compare only where they are flat in eps.

    Source: Karras et al., "A Style-Based Generator Architecture for Generative Adversarial
    Networks", section 4.1, "end" variant; resizing: torchmetrics' `perceptual_path_length`.

    Example:
        >>> PublishedPathLength().column
        'ppl'
    """

    weights = (VGG16,)
    column = "ppl"

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the trunk; its hash is checked before the file is opened."""
        super().prepare(surroundings)
        self.network = load_lpips("vgg", surroundings)

    def distance(
        self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Return LPIPS of each pair at 64 pixels."""
        pairs = torch.stack([resized(x) for x in (a, b)], 1)
        return map_batches(self._distance, pairs, BATCH)

    def _distance(self, pairs: Float[Tensor, "b 2 3 64 64"]) -> Float[Tensor, " b"]:
        return self.network(*pairs.to(self.surroundings.device).unbind(1)).flatten().cpu()


def resized(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 64 64"]:
    """Return images at 64 pixels."""
    if min(images.shape[-2:]) > SIZE:
        return interpolate(images, (SIZE, SIZE), mode="area")
    return interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False)
