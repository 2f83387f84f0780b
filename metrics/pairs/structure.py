"""`struct_zoo1`: does an edit keep the layout of the image, whatever its colours?"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from latentbench.batching import map_batches
from latentbench.metric import Figure, Surroundings
from metrics.networks.reader import BATCH, Reader
from metrics.pairs.pairwise import Pairwise

JUDGE, GRID = "zoo1", 16  # positions per side
SMALLEST = 0.002  # the smallest difference that matters: a hundredth of what two faces differ by


class Structure(Pairwise):
    """Mean squared difference of two images' self-similarities of a convolutional judge's features.

    The twin of `dino_struct`: the features of the first block, averaged over a grid of 16 x 16
    positions; from each position the image's mean is taken off; self-similarity is the matrix of
    the positions' cosines. The network is not a ViT: its features are local, and small parts (nose,
    mouth) hardly count. Block and centring were chosen by how much more the figure reads for layout
    than for colour, on rendered counterfactuals; `docs/metrics.md` has the figures. The label-free
    features of ``zoo2`` read as much for colour as for layout, so it has no such twin.

    Source: Tumanyan et al., "Splicing ViT Features for Semantic Appearance Transfer", section 3.1,
    with features of this suite.

    Example:
        >>> list(Structure().figures)
        ['struct_zoo1']
    """

    fixed_networks = frozenset({JUDGE})
    source = "Splicing ViT Features, section 3.1, with a convolutional judge of this suite"
    figure = Figure(
        "squared difference of self-similarities of a judge's features",
        low=0.0,
        high=4.0,
        higher_is_better=False,
        smallest=SMALLEST,
    )

    def __init__(self) -> None:
        super().__init__(against=("sources",))

    def column(self, kind: str) -> str:
        """Return the figure's name: it is against the source always."""
        del kind
        return f"struct_{JUDGE}"

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(JUDGE, surroundings)

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair."""
        return map_batches(self._distance, torch.stack([outputs, targets], 1), BATCH)

    def _distance(self, pairs: Float[Tensor, "n 2 3 h w"]) -> Float[Tensor, " n"]:
        a, b = (self._similarity(x) for x in pairs.to(self.reader.device).unbind(1))
        return (a - b).square().mean((1, 2)).cpu()

    def _similarity(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t t"]:
        maps = adaptive_avg_pool2d(self.reader.judge.pyramid(images)[0], GRID)
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = normalize(tokens - tokens.mean(1, keepdim=True), dim=2)
        return tokens @ tokens.transpose(1, 2)
