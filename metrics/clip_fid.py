"""`clip_fid`: the Frechet distance of CLIP features."""

from latentbench.metric import Figure, Surroundings
from metrics.clip import CLIP, load_clip, weights_of
from metrics.frechet import FrechetDistance


class ClipFrechetDistance(FrechetDistance):
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
    weights = weights_of("vit_b32")

    def __init__(
        self,
        *,
        reference_split: str = "test",
        reference_n: int = 10_000,
        per_dimension: float = 2.0,
    ) -> None:
        super().__init__(
            reference_split=reference_split, reference_n=reference_n, per_dimension=per_dimension
        )

    @property
    def column(self) -> str:
        """Name of the figure."""
        return "clip_fid"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "Frechet distance, CLIP ViT-B/32 embeddings"
        return {self.column: Figure(what, low=0.0, higher_is_better=False)}

    def load(self, surroundings: Surroundings) -> CLIP:
        """Return the network; hashes are checked before a file is opened."""
        return load_clip("vit_b32", surroundings)
