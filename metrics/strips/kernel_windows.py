"""`kd_windows_<judge>`: do windows of wide pictures look like windows of true ones?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import SetSize
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.metric import Figure
from latentbench.types import Capability, Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import finite
from metrics.sets.feature_sets import Set
from metrics.sets.kernel import KernelDistance

READ = 64  # true strips held in memory at once


class WindowKernelDistance(KernelDistance):
    """Kernel distance of square windows of the outputs to those of true strips.

    Windows lie side by side from the left end, as high as the picture: they cut things in two
    wherever these stand, in outputs and in true strips alike. Pairs of one strip are left out.

    Source: Binkowski et al., "Demystifying MMD GANs", section 4, as `KernelDistance` has it.

    Args:
        extractor: judge that gives the features.
        reference_n: number of true strips.

    Example:
        >>> WindowKernelDistance().column
        'kd_windows_zoo1'
    """

    prefix = "kd_windows"

    def __init__(self, *, extractor: JudgeName = "zoo1", reference_n: SetSize = 256) -> None:
        super().__init__(extractor=extractor, reference_n=reference_n)

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"kernel distance of windows to those of true strips, features of {self.extractor}"
        return {self.column: Figure(what, higher_is_better=False)}

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it has no strips."""
        if Capability.STRIPS not in dataset.gives:
            return f"needs strips, which {type(dataset).__name__} has not"
        return super().unfed(dataset)

    def images(self, samples: Samples) -> Float[Tensor, "b k 3 h h"]:
        """Return the windows of the outputs that count, by row."""
        return side_by_side(super().images(samples)).flatten(1, 2)

    def real(self, split: str, indices: range) -> Set:
        """Return the features of the windows of true strips, with the strips' ids."""
        data = self.surroundings.dataset
        width = int(data.batch(split, indices[:1]).images.shape[-1])
        key = content_hash(self.network.digest, "windows", data.version, split, width, str(indices))

        def make() -> dict[str, Tensor]:
            parts = [indices[k : k + READ] for k in range(0, len(indices), READ)]
            rows = [self.network.features(side_by_side(data.batch(split, p).images)) for p in parts]
            return {"windows": finite(torch.cat(rows), self.network.name)}

        found = self.surroundings.cache.get_or_make("features", key, make)["windows"]
        ids = [name for name in data.describe(split, indices).ids for _ in range(found.shape[1])]
        return found.flatten(0, 1).double().numpy(), ids


def side_by_side(strips: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n k 3 h h"]:
    """Return the square windows of strips that lie side by side from the left end.

    Example:
        >>> side_by_side(torch.zeros(2, 3, 4, 9)).shape
        torch.Size([2, 2, 3, 4, 4])
    """
    side = strips.shape[-2]
    return strips.unfold(-1, side, side).movedim(-2, -4)
