"""`dino_struct`: does an edit keep the structure of the image?"""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from latentbench.batching import map_batches
from latentbench.bounds import matches
from latentbench.errors import BadInput
from latentbench.metric import Figure, Surroundings
from latentbench.zoo.published_weights import PublishedWeights
from metrics.networks.pixels import IMAGENET, as_bytes, normalised
from metrics.networks.reader import BATCH
from metrics.networks.vision_transformer import VisionTransformer
from metrics.pairs.pairwise import Pairwise

SIZE = 224
SMALLEST = 0.001  # the smallest difference that matters: 1 in the unit of published tables
URL = "https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth"


class DINOStructure(Pairwise):
    """Mean squared difference of the two images' self-similarities of DINO ViT-B/8 keys.

    Keys of the last block, all heads side by side, class token included; self-similarity is the
    matrix of their cosines. Square images, resized to 224 pixels (bilinear, no antialiasing, as
    the reference code ran). Tables quote 1000 times the figure.

    No sha256 of the authors' file has been published, so it is switched off until a user names the
    one to trust; that hash is part of the cell's id and of the record.

    Source: Tumanyan et al., "Splicing ViT Features for Semantic Appearance Transfer", section 3.1;
    as a metric in Ju et al., "PnP Inversion" (PIE-Bench).

    Args:
        unscaled: repeat PnPInversion's slip, which hands images in 0..255 to a normalisation for
            0..1; gives ``dino_struct_unscaled``, comparable with its published table.
        sha256: of ``dino_vitbase8_pretrain.pth``.

    Raises:
        BadInput: images that are not square.

    Example:
        >>> list(DINOStructure(unscaled=True).figures)
        ['dino_struct_unscaled']
    """

    source = "Splicing ViT Features for Semantic Appearance Transfer, section 3.1; PIE-Bench"

    def __init__(
        self,
        *,
        unscaled: bool = False,
        sha256: Annotated[str, matches("[0-9a-f]{64}", "of 64 hexadecimal digits")] | None = None,
    ) -> None:
        super().__init__(against=("sources",))
        self.unscaled, self.sha256 = unscaled, sha256
        self.file = PublishedWeights("dino_vitbase8_pretrain.pth", sha256 or "", URL)
        self.weights = (self.file,)
        what = "squared difference of self-similarities of DINO keys"
        self.figure = Figure(what, "", 0.0, 4.0, False, smallest=SMALLEST)

    def column(self, kind: str) -> str:
        """Return the published name: it is against the source always."""
        del kind
        return "dino_struct_unscaled" if self.unscaled else "dino_struct"

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the network; its hash is checked before the file is opened."""
        super().prepare(surroundings)
        state = self.file.state(surroundings.weights_dir)
        self.network = vit_b8()
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False).to(surroundings.device)

    def compare(
        self, outputs: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each pair."""
        if outputs.shape[-1] != outputs.shape[-2]:
            raise BadInput(
                f"DINOStructure needs square images, got {tuple(outputs.shape[-2:])}; crop them"
            )
        return map_batches(self._distance, torch.stack([outputs, targets], 1), BATCH)

    def _distance(self, pairs: Float[Tensor, "n 2 3 h w"]) -> Float[Tensor, " n"]:
        a, b = (self._similarity(x) for x in pairs.to(self.surroundings.device).unbind(1))
        return (a - b).square().mean((1, 2)).cpu()

    def _similarity(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n t t"]:
        pixels = as_bytes(images).float() / (1 if self.unscaled else 255)
        resized = interpolate(pixels, (SIZE, SIZE), mode="bilinear", align_corners=False)
        keys = normalize(self.network.keys(normalised(resized, *IMAGENET)), dim=2)
        return keys @ keys.transpose(1, 2)


def vit_b8() -> VisionTransformer:
    """Return the architecture of the published file."""
    return VisionTransformer(patch=8, width=768, depth=12, heads=12, grid=28)
