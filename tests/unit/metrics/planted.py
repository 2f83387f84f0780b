"""Images that hold their factors in their first pixels, and a judge that reads them back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.data.faces import ATTRIBUTES, FACTOR_NAMES, THINGS
from latentbench.streams import Streams
from latentbench.types import Batch, Capability, Samples
from latentbench.zoo.judges import Judge

SIZE = 16
F = len(FACTOR_NAMES)
D = 6


def plant(factors: Tensor, texture: Tensor | None = None) -> Tensor:
    """Return images ``[*n, 3, 16, 16]`` of factors in [0, 1] ``[*n, f]``."""
    images = torch.zeros(*factors.shape[:-1], 3, SIZE, SIZE) if texture is None else texture.clone()
    flat = images.flatten(-2)
    flat[..., 0, :F] = 2 * factors - 1
    return flat.unflatten(-1, (SIZE, SIZE))


class PlantedJudge(Judge):
    """Reads planted factors exactly; features are fixed random projections."""

    def __init__(self, name: str = "zoo1") -> None:
        super().__init__(name, 2)
        generator = torch.Generator().manual_seed(int(name[-1]))
        self.register_buffer(
            "projection", torch.randn(3 * SIZE * SIZE, D, generator=generator) / 16
        )

    def factors(self, images):
        return ((images[:, 0].flatten(1)[:, :F] + 1) / 2).clamp(0, 1)

    def identity(self, images):
        who = self.factors(images)[:, :10] - 0.5
        return torch.nn.functional.normalize(who, dim=1)

    def features(self, images):
        return (images.flatten(1)[:, :, None] * self.projection).sum(1)  # row by row, unlike @

    def pyramid(self, images):
        return [images, torch.nn.functional.avg_pool2d(images, 4)]


class PlantedData(Dataset):
    """Faces' factors without faces."""

    gives = frozenset({Capability.LABELS})
    factor_names = FACTOR_NAMES
    attributes = ATTRIBUTES
    things = THINGS

    def __init__(self, count: int = 1024) -> None:
        self.count = count

    def size(self, split: str) -> int:
        return self.count

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        ids = tuple(f"{split}/{k}" for k in indices)
        texture = 0.3 * Streams(0).normal("texture", ids, (3, SIZE, SIZE))
        factors = torch.stack(
            [torch.rand(F, generator=Streams(0).generator("factors", i)) for i in ids]
        )
        return Batch(ids, plant(factors, texture.clamp(-1, 1)), factors=factors)


def outputs_of(images: Tensor, **more) -> Samples:
    """Return samples with one output per row."""
    ids = tuple(f"image/{k:04d}" for k in range(len(images)))
    return Samples(ids, images[:, None], ("all",) * len(ids), **more)


def in_parts(metric, samples: Samples, sizes: Sequence[int]):
    """Update a metric with consecutive parts; the last takes the rest."""
    start = 0
    for size in [*sizes, len(samples)]:
        stop = min(start + size, len(samples))
        if stop > start:
            metric.update(samples.rows(range(start, stop)))
        start = stop
    return metric


def coded(codes, factors=None, **more) -> Samples:
    """Return samples that carry codes, and factors where there are any."""
    n = len(codes)
    fields = {"codes": torch.as_tensor(codes).float(), **more}
    if factors is not None:
        fields["factors"] = torch.as_tensor(factors).float()
    ids = tuple(f"image/{k:05d}" for k in range(n))
    return Samples(ids, torch.zeros(n, 1, 3, 2, 2), ("images",) * n, **fields)
