"""`clip_dir`: does the image change in the direction in which the caption changes?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from metrics.networks.clip import Net, TextImageEncoder, load_clip, weights_of

UNMOVED = 1e-3  # a change of an embedding, below which it has no direction


class CaptionDirection(SampleMetric):
    """Base: cos(E(output) - E(source), T(caption) - T(source caption)), unit embeddings E and T.

    A pair whose images or captions hardly differ (below 1e-3) has no direction: it is left out,
    and the note counts such pairs.
    """

    needs = frozenset({"sources", "prompts", "source_prompts"})
    encoder: TextImageEncoder
    column: str

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "cosine of the change of the image and that of the caption"
        return {self.column: Figure(what, low=-1.0, high=1.0, higher_is_better=True)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return a cosine per output; NaN where there is no direction."""
        assert samples.sources is not None
        assert samples.prompts is not None and samples.source_prompts is not None
        moved = self.encoder.image(samples.outputs) - self.encoder.image(samples.sources)[:, None]
        asked = self.encoder.text(samples.prompts) - self.encoder.text(samples.source_prompts)
        return {self.column: direction_cosine(moved, asked[:, None])}


class ClipDirection(CaptionDirection):
    """The published directional CLIP similarity.

    Source: Gal et al., "StyleGAN-NADA", section 4.1; as a metric in Brooks et al.,
    "InstructPix2Pix", section 4.

    Args:
        net: "vit_l14" gives ``clip_dir``; "vit_b32" gives ``clip_dir_vit_b32``.

    Example:
        >>> ClipDirection().column
        'clip_dir'
    """

    source = "StyleGAN-NADA, section 4.1; InstructPix2Pix, section 4"

    def __init__(self, *, net: Net = "vit_l14") -> None:
        super().__init__()
        self.net: Net = net
        self.column = "clip_dir" if net == "vit_l14" else f"clip_dir_{net}"
        self.weights = weights_of(net)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the network; hashes are checked before a file is opened."""
        super().prepare(surroundings)
        self.encoder = load_clip(self.net, surroundings)


def direction_cosine(
    moved: Float[Tensor, "*b d"], asked: Float[Tensor, "*b d"]
) -> Float[Tensor, "*b"]:
    """Return the cosine of two changes; NaN where either is below 1e-3.

    Example:
        >>> direction_cosine(torch.eye(2), torch.ones(2, 2)).tolist()
        [0.7071067690849304, 0.7071067690849304]
    """
    lengths = moved.norm(dim=-1), asked.norm(dim=-1)
    has_direction = torch.minimum(*torch.broadcast_tensors(*lengths)) > UNMOVED
    cosine = (moved * asked).sum(-1) / (lengths[0] * lengths[1])
    return cosine.where(has_direction, torch.nan)
