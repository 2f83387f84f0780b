"""`lpips_alex`, `lpips_vgg`, `lpips_squeeze`: the published LPIPS."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from lpips import LPIPS
from torch import Tensor, nn

from latentbench.batching import map_batches
from latentbench.metric import Figure, Surroundings
from latentbench.zoo.published_weights import PublishedWeights
from metrics.networks.reader import BATCH
from metrics.pairs.pairwise import Pairwise, References

Net = Literal["alex", "vgg", "squeeze"]
WHERE = "https://download.pytorch.org/models/"
ALEXNET = PublishedWeights(
    "alexnet-owt-7be5be79.pth",
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    WHERE + "alexnet-owt-7be5be79.pth",
)
VGG16 = PublishedWeights(
    "vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    WHERE + "vgg16-397923af.pth",
)
SQUEEZENET = PublishedWeights(
    "squeezenet1_1-b8a52dc0.pth",
    "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
    WHERE + "squeezenet1_1-b8a52dc0.pth",
)
TRUNKS: Mapping[Net, PublishedWeights] = {"alex": ALEXNET, "vgg": VGG16, "squeeze": SQUEEZENET}
SMALLEST: Mapping[Net, int] = {"alex": 64, "vgg": 32, "squeeze": 64}  # pixels; see the docstring


class LPIPSDistance(Pairwise):
    """The published LPIPS (version 0.1) by the `lpips` package itself.

    Images below a smallest side (64 pixels; 32 with VGG) are resized to it (bilinear), as the
    trunk's last maps would have one pixel; with such images the figure is comparable within this
    suite only. Papers mostly mean AlexNet; AID took VGG, PIE-Bench SqueezeNet.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".

    Args:
        net: the trunk; part of the figure's name.
        against: which images; each gives a column.

    Example:
        >>> list(LPIPSDistance(net="vgg").figures)
        ['lpips_vgg']
    """

    source = "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"

    def __init__(
        self,
        *,
        net: Net = "alex",
        against: References = ("truths",),
    ) -> None:
        super().__init__(against=against)
        self.net: Net = net
        self.name, self.weights = f"lpips_{net}", (TRUNKS[net],)
        self.figure = Figure(f"LPIPS with the trunk {net}", low=0.0, higher_is_better=False)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the trunk; its hash is checked before the file is opened."""
        super().prepare(surroundings)
        self.network = load_lpips(self.net, surroundings)

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair."""
        pairs = torch.stack([outputs, targets], 1)
        return map_batches(self._distance, pairs, BATCH)

    def _distance(self, pairs: Float[Tensor, "n 2 3 h w"]) -> Float[Tensor, " n"]:
        images = pairs.to(self.surroundings.device).unbind(1)
        a, b = (_large_enough(x, SMALLEST[self.net]) for x in images)
        return self.network(a, b).flatten().cpu()


def load_lpips(net: Net, surroundings: Surroundings) -> nn.Module:
    """Return the package's network with the published trunk."""
    trunk = TRUNKS[net].state(surroundings.weights_dir)
    return lpips_with(net, trunk).to(surroundings.device)


def lpips_with(net: Net, trunk: Mapping[str, Any]) -> nn.Module:
    """Return the package's network with this trunk, a state dict of torchvision's network."""
    network = LPIPS(net=net, pnet_rand=True, verbose=False)
    names = network.net.state_dict()  # "slice2.3.weight" is "features.3.weight" in torchvision
    state = {name: trunk[f"features.{name.split('.', 1)[1]}"] for name in names}
    network.net.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _large_enough(images: Float[Tensor, "n 3 h w"], smallest: int) -> Float[Tensor, "n 3 h2 w2"]:
    if min(images.shape[-2:]) >= smallest:
        return images
    size = [max(smallest, side) for side in images.shape[-2:]]
    return nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
