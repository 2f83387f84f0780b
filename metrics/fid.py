"""`fid`: the published Frechet Inception distance, clean-fid's clean mode."""

from pathlib import Path

import numpy as np
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from jaxtyping import Float
from torch import Tensor, nn

from latentbench.batching import map_batches
from latentbench.metric import Figure, Surroundings
from metrics.features import BATCH
from metrics.frechet import FrechetDistance
from metrics.published import PublishedWeights

INCEPTION = PublishedWeights(
    "inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "nvlabs-fi-cdn.nvidia.com, stylegan2-ada-pytorch/pretrained/metrics; TorchScript",
)


class InceptionFeatures:
    """Features of clean-fid's Inception network, with its own resizing.

    Images are rounded to 8 bits, as a PNG would, resized by `build_resizer("clean")` (bicubic, on
    floats) and given to the network in [0, 255].

    Args:
        network: images ``[b, 3, 299, 299]`` in [0, 255] to features ``[b, d]``.
        digest: hash of its weights.
        device: where it runs.
    """

    name = ""

    def __init__(self, network: nn.Module, digest: str, device: torch.device) -> None:
        self.network, self.digest, self.device = network.to(device).eval(), digest, device
        self.resize = build_resizer("clean")

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the pooled features."""
        found = map_batches(self._read, images.flatten(0, -4), BATCH)
        return found.unflatten(0, images.shape[:-3])

    def _read(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        whole = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        arrays = [self.resize(x) for x in whole.permute(0, 2, 3, 1).cpu().numpy()]
        resized = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        return self.network(resized.to(self.device)).cpu()


class FrechetInceptionDistance(FrechetDistance):
    """The published FID in clean-fid's clean mode: its network, its resizing, its distance.

    Switched on by the original weights only. `FrechetDistance` says when there is no value (below
    2 x 2048 images) and what the interval covers.

    Source: Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation".

    Args:
        reference_split: split of the real images.
        reference_n: number of real images.

    Example:
        >>> FrechetInceptionDistance().missing(None).startswith("no weights_dir")
        True
    """

    source = "On Aliased Resizing and Surprising Subtleties in GAN Evaluation"

    def __init__(self, *, reference_split: str = "test", reference_n: int = 10_000) -> None:
        super().__init__(reference_split=reference_split, reference_n=reference_n)

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "fid"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        return {"fid": Figure("FID, clean-fid's clean mode", low=0.0, higher_is_better=False)}

    def missing(self, weights_dir: Path | None) -> str | None:
        """Return why the network's file cannot be used, or None."""
        return INCEPTION.missing(weights_dir)

    def load(self, surroundings: Surroundings) -> InceptionFeatures:
        """Return the network; its hash is checked before the file is opened."""
        folder = INCEPTION.path(surroundings.weights_dir).parent
        network = InceptionV3W(str(folder), download=False)
        return InceptionFeatures(network, INCEPTION.digest, surroundings.device)
