"""Small faces that are rendered once: at 32 pixels, drawing costs as much as a training step."""

import functools
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from latentbench import store
from latentbench.data import faces
from latentbench.zoo import training
from latentbench.zoo.recipes.faces_ldm import detail_weight

SIZE = 32
FIRST, COUNT = 60_000_000, 32_768
PLACE = f"cached_faces_{SIZE}px"


class CachedFaces:
    """Faces of the generators' split with the weight of each pixel in a reconstruction loss.

    Args:
        root: folder of the checkpoints; the faces lie there once they are made.
        count: number of faces.
        device: where batches go.
    """

    def __init__(self, root: Path, count: int, device: torch.device) -> None:
        self.device = device
        path = root / PLACE / f"{count}.safetensors"
        if not path.is_file():
            made = _render(count)
            store.write(path, safetensors.torch.save(made))
        tensors = safetensors.torch.load_file(path)
        self.images: UInt8[Tensor, "n 3 h w"] = tensors["images"]
        self.weights: UInt8[Tensor, "n 1 h w"] = tensors["weights"]

    def rows(self, batch: int, step: int, seed: int) -> list[int]:
        """Return the faces of one step: each epoch goes through all of them in a new order."""
        first = step * batch
        return [
            int(_order(len(self.images), seed, k // len(self.images))[k % len(self.images)])
            for k in range(first, first + batch)
        ]

    def batch(
        self, plan: training.Plan, step: int
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 1 h w"]]:
        """Return images of one step and the weight of their pixels: eyes, nose, mouth more."""
        rows = self.rows(plan.batch, step, plan.seed)
        images = training.from_uint8(self.images[rows]).to(self.device)
        return images, 1 + self.weights[rows].float().to(self.device) / 85

    @torch.no_grad()
    def read(
        self, encoder: Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b d"]]
    ) -> Float[Tensor, "n d"]:
        """Return an encoder's codes of all faces, in their order."""
        parts = self.images.split(256)
        return torch.cat([encoder(training.from_uint8(part).to(self.device)) for part in parts])


@functools.lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=training.step_generator(seed, epoch)).tolist()


def _render(count: int) -> dict[str, Tensor]:
    images, weights = [], []
    for part in torch.arange(FIRST, FIRST + count).split(128):
        factors = faces.sample_factors("generator", part)
        images.append(training.to_uint8(faces.render(factors, SIZE)))
        extra = F.avg_pool2d(detail_weight(factors) - 1, faces.NATIVE_SIZE // SIZE)  # 0 to 3
        weights.append((extra * 85).round().to(torch.uint8))
    return {"images": torch.cat(images), "weights": torch.cat(weights)}
