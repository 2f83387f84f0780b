"""`clip_score`: does the output fit its caption?"""

from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from metrics.networks.clip import Net, TextImageEncoder, load_clip, weights_of


class CaptionScore(SampleMetric):
    """Base: 100 max(cos(image, caption), 0) of each output and its row's caption."""

    needs = frozenset({"prompts"})
    encoder: TextImageEncoder
    column: str

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "100 times the cosine of output and caption, at least 0"
        return {self.column: Figure(what, low=0.0, high=100.0, higher_is_better=True)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return a score per output."""
        assert samples.prompts is not None
        return {self.column: caption_score(self.encoder, samples.outputs, samples.prompts)}


class ClipScore(CaptionScore):
    """The published CLIP score, as torchmetrics computes it.

    Source: Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning",
    with the factor 100 of torchmetrics instead of 2.5.

    Args:
        net: "vit_l14" (as in torchmetrics and PIE-Bench) gives ``clip_score``; "vit_b32" (as in
            the paper) gives ``clip_score_vit_b32``.

    Example:
        >>> ClipScore(net="vit_b32").column
        'clip_score_vit_b32'
    """

    source = "CLIPScore: A Reference-free Evaluation Metric for Image Captioning; torchmetrics"

    def __init__(self, *, net: Net = "vit_l14") -> None:
        super().__init__()
        self.net: Net = net
        self.column = "clip_score" if net == "vit_l14" else f"clip_score_{net}"
        self.weights = weights_of(net)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the network; hashes are checked before a file is opened."""
        super().prepare(surroundings)
        self.encoder = load_clip(self.net, surroundings)


def caption_score(
    encoder: TextImageEncoder, images: Float[Tensor, "b s 3 h w"], captions: tuple[str, ...]
) -> Float[Tensor, "b s"]:
    """Return 100 max(cos, 0) of each image and its row's caption."""
    cosines = (encoder.image(images) * encoder.text(captions)[:, None]).sum(-1)
    return 100 * cosines.clamp_min(0)
