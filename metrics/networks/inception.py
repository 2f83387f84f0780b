"""The Inception network of published metrics, with the resizing of each way to use it."""

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from latentbench.batching import map_batches
from latentbench.metric import Surroundings
from latentbench.zoo.published_weights import PublishedWeights
from metrics.networks.pixels import as_bytes
from metrics.networks.reader import BATCH

Mode = Literal["clean", "legacy_pytorch", "legacy_tensorflow"]
TORCHSCRIPT = PublishedWeights(
    "inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
)
PORTED = PublishedWeights(
    "pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
WEIGHTS: Mapping[Mode, PublishedWeights] = {
    "clean": TORCHSCRIPT,
    "legacy_pytorch": PORTED,
    "legacy_tensorflow": TORCHSCRIPT,
}


class InceptionFeatures:
    """Pooled features of Inception, images prepared as one mode of clean-fid prepares them.

    Images are rounded to 8 bits, as a PNG would. ``clean``: PIL's bicubic filter on floats, then
    clipped; ``legacy_pytorch``: torch's bilinear filter without antialiasing; both to 299 pixels.
    ``legacy_tensorflow``: the network resizes.

    Args:
        network: images ``[b, 3, h, w]`` in [0, 255], resized, to features ``[b, d]``.
        digest: hash of its weights.
        device: where it runs.
        mode: how images are resized.
    """

    name = ""

    def __init__(
        self, network: nn.Module, digest: str, device: torch.device, mode: Mode = "clean"
    ) -> None:
        self.network, self.device = network.to(device).eval(), device
        self.digest = f"{mode}/{digest}"
        self.resize = build_resizer(mode)

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the pooled features."""
        found = map_batches(self._read, images.flatten(0, -4), BATCH)
        return found.unflatten(0, images.shape[:-3])

    def _read(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        arrays = [self.resize(x) for x in as_bytes(images).permute(0, 2, 3, 1).cpu().numpy()]
        resized = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float()
        return self.network(resized.to(self.device)).cpu()


class PortedInception(nn.Module):
    """The pytorch-fid port as clean-fid's legacy_pytorch mode calls it.

    Args:
        network: the port, of torch-fidelity, which is the same network without another resizing.
    """

    def __init__(self, network: FeatureExtractorInceptionV3) -> None:
        super().__init__()
        layers = [layer for name, layer in network.named_children() if name != "fc"]
        self.layers = nn.Sequential(*layers, nn.Flatten())

    def forward(self, images: Float[Tensor, "b 3 299 299"]) -> Float[Tensor, "b 2048"]:
        """Return the pooled features of images in [0, 255]."""
        return self.layers(2 * (images / 255) - 1)


class InceptionLogits:
    """Logits without bias of torch-fidelity's Inception, which resizes as TensorFlow 1 did.

    Args:
        network: the port, giving ``logits_unbiased``.
        digest: hash of its weights.
        device: where it runs.
    """

    name = ""

    def __init__(
        self, network: FeatureExtractorInceptionV3, digest: str, device: torch.device
    ) -> None:
        self.network, self.digest, self.device = network.to(device), f"logits/{digest}", device

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 1008"]:
        """Return the logits."""
        found = map_batches(self._read, as_bytes(images).flatten(0, -4), BATCH)
        return found.unflatten(0, images.shape[:-3])

    def _read(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1008"]:
        return self.network(images.to(self.device))[0].cpu()


def load_inception(mode: Mode, surroundings: Surroundings) -> InceptionFeatures:
    """Return the network of one of clean-fid's modes; its hash is checked before it is opened."""
    weights, folder = WEIGHTS[mode], surroundings.weights_dir
    if mode == "legacy_pytorch":
        network: nn.Module = PortedInception(ported(weights.state(folder), "2048"))
    else:
        inside = mode == "legacy_tensorflow"
        where = str(weights.path(folder).parent)
        network = InceptionV3W(where, download=False, resize_inside=inside)
    return InceptionFeatures(network, weights.digest, surroundings.device, mode)


def ported(state: Mapping[str, Any], output: str) -> FeatureExtractorInceptionV3:
    """Return torch-fidelity's network with these weights.

    Args:
        state: tensors by name, as in the published file.
        output: "2048" or "logits_unbiased".
    """
    file = io.BytesIO()  # it unpickles what it is given: nothing but tensors that we wrote
    torch.save(dict(state), file)
    file.seek(0)
    return FeatureExtractorInceptionV3("inception", [output], feature_extractor_weights_path=file)
