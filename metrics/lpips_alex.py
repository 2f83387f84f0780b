"""`lpips_alex`: the published LPIPS with AlexNet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lpips import LPIPS
from torch import Tensor, nn

from latentbench.batching import map_batches
from latentbench.metric import Figure, Surroundings
from metrics.features import BATCH
from metrics.pairwise import Against, Pairwise
from metrics.published import PublishedWeights

ALEXNET = PublishedWeights(
    "alexnet-owt-7be5be79.pth",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    "download.pytorch.org/models, torchvision's AlexNet",
)
SMALLEST = 64  # pixels: below, AlexNet's last layers see almost nothing


class LPIPSAlex(Pairwise):
    """The published LPIPS (version 0.1, AlexNet) by the `lpips` package itself.

    Images of fewer than 64 pixels per side are resized to 64 (bilinear), as AlexNet's last maps
    would have one pixel; with such images the figure is comparable within this suite only.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".

    Args:
        against: which images; each gives a column.

    Example:
        >>> list(LPIPSAlex().figures)
        ['lpips_alex']
    """

    name = "lpips_alex"
    figure = Figure("LPIPS with AlexNet", low=0.0, higher_is_better=False)
    source = "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"

    def __init__(self, *, against: Sequence[Against] = ("truths",)) -> None:
        super().__init__(against=against)

    def missing(self, weights_dir: Path | None) -> str | None:
        """Return why the trunk's file cannot be used, or None."""
        return ALEXNET.missing(weights_dir)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the trunk; its hash is checked before the file is opened."""
        super().prepare(surroundings)
        trunk = ALEXNET.state(surroundings.weights_dir)
        self.network = lpips_with(trunk).to(surroundings.device)

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n"]:
        """Return the distance of each pair."""
        pairs = torch.stack([outputs, targets], 1)
        return map_batches(self._distance, pairs, BATCH)

    def _distance(self, pairs: Float[Tensor, "n 2 3 h w"]) -> Float[Tensor, "n"]:
        a, b = (_large_enough(x) for x in pairs.to(self.surroundings.device).unbind(1))
        return self.network(a, b).flatten().cpu()


def lpips_with(trunk: Mapping[str, Any]) -> nn.Module:
    """Return the package's network with this trunk, a state dict of torchvision's AlexNet."""
    network = LPIPS(net="alex", pnet_rand=True, verbose=False)
    names = network.net.state_dict()  # "slice2.3.weight" is "features.3.weight" in torchvision
    state = {name: trunk[f"features.{name.split('.', 1)[1]}"] for name in names}
    network.net.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _large_enough(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    if min(images.shape[-2:]) >= SMALLEST:
        return images
    size = [max(SMALLEST, side) for side in images.shape[-2:]]
    return nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
