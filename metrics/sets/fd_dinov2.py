"""`fd_dinov2`: the Frechet distance of DINOv2 features."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from latentbench.batching import map_batches
from latentbench.metric import Surroundings
from latentbench.zoo.published_weights import PublishedWeights
from metrics.networks.pixels import IMAGENET, as_bytes, normalised, squeeze_bicubic
from metrics.networks.reader import BATCH
from metrics.networks.vision_transformer import VisionTransformer
from metrics.sets.frechet import PublishedFrechetDistance

SIZE = 224
DINOV2 = PublishedWeights(
    "dinov2_vitl14_pretrain.pth",
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
)


class DINOv2Features:
    """Class-token features of DINOv2, images prepared as dgm-eval prepares them.

    Images are rounded to 8 bits, squeezed to 224 x 224 by PIL's bicubic filter, and normalised by
    ImageNet's statistics.

    Args:
        network: normalised images to features.
        digest: hash of its weights.
        device: where it runs.
    """

    name = ""

    def __init__(self, network: nn.Module, digest: str, device: torch.device) -> None:
        self.network, self.digest, self.device = network.to(device).eval(), digest, device

    def features(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n d"]:
        """Return the features."""
        found = map_batches(self._read, as_bytes(images).flatten(0, -4), BATCH)
        return found.unflatten(0, images.shape[:-3])

    def _read(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        pixels = squeeze_bicubic(images, SIZE).float() / 255
        return self.network(normalised(pixels, *IMAGENET).to(self.device)).cpu()


class FrechetDINOv2(PublishedFrechetDistance):
    """Frechet distance of DINOv2 ViT-L/14 features, which follow people's judgement better.

    Switched on by the original weights only. `FrechetDistance` says when there is no value (1024
    feature dimensions) and what the interval covers. Published figures take 50,000 samples.

    Source: Stein et al., "Exposing flaws of generative model evaluation metrics and their unfair
    treatment of diffusion models", section 4; preparation as in its code dgm-eval.

    Args:
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: images per feature dimension, on both sides, below which there is no value.

    Example:
        >>> FrechetDINOv2().column
        'fd_dinov2'
    """

    source = "Exposing flaws of generative model evaluation metrics, section 4; dgm-eval"
    what = "Frechet distance, DINOv2 ViT-L/14 features"
    weights = (DINOV2,)

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "fd_dinov2"

    def load(self, surroundings: Surroundings) -> DINOv2Features:
        """Return the network; its hash is checked before the file is opened."""
        state = DINOV2.state(surroundings.weights_dir)
        del state["mask_token"]  # of training only
        network = vit_l14()
        network.load_state_dict(state)
        network.requires_grad_(False)
        return DINOv2Features(network, DINOV2.digest, surroundings.device)


def vit_l14() -> VisionTransformer:
    """Return the architecture of the published file."""
    return VisionTransformer(patch=14, width=1024, depth=24, heads=16, grid=37, layer_scale=True)
