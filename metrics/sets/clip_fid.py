"""`clip_fid`: the Frechet distance of CLIP features."""

from latentbench.metric import Surroundings
from metrics.networks.clip import CLIP, load_clip, weights_of
from metrics.sets.frechet import PublishedFrechetDistance


class ClipFrechetDistance(PublishedFrechetDistance):
    """CLIP-FID: the Frechet distance of CLIP ViT-B/32 image embeddings, as clean-fid has it.

    Switched on by the original weights only. `FrechetDistance` says when there is no value (512
    feature dimensions) and what the interval covers.

    Source: Kynkaanniemi et al., "The Role of ImageNet Classes in Frechet Inception Distance",
    section 4; preparation as in clean-fid's `clip_vit_b_32`.

    Args:
        reference_split: split of the real images.
        reference_n: number of real images.
        per_dimension: images per feature dimension, on both sides, below which there is no value.

    Example:
        >>> ClipFrechetDistance().column
        'clip_fid'
    """

    source = "The Role of ImageNet Classes in Frechet Inception Distance, section 4; clean-fid"
    what = "Frechet distance, CLIP ViT-B/32 embeddings"
    weights = weights_of("vit_b32")

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "clip_fid"

    def load(self, surroundings: Surroundings) -> CLIP:
        """Return the network; hashes are checked before a file is opened."""
        return load_clip("vit_b32", surroundings)
