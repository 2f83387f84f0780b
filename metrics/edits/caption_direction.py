"""`cdir_<pair>`: does the image change as the caption does, as an embedded pair sees it?"""

from latentbench.data.dataset import Dataset
from latentbench.metric import Surroundings
from latentbench.zoo.text_image import JudgingPair
from metrics.edits.clip_direction import CaptionDirection
from metrics.networks.pair_reader import PairReader, unread


class EmbeddedDirection(CaptionDirection):
    """Cosine of the changes of image and caption with a text-image pair of this suite.

    Source: Gal et al., "StyleGAN-NADA", section 4.1. Deviation: the pair is trained in this suite,
    hence the name. Twin of `clip_dir`.

    Args:
        extractor: the pair.

    Example:
        >>> EmbeddedDirection().column
        'cdir_clip2'
    """

    source = "StyleGAN-NADA, section 4.1, with a text-image pair of this suite"

    def __init__(self, *, extractor: JudgingPair = "clip2") -> None:
        super().__init__()
        self.extractor, self.column = extractor, f"cdir_{extractor}"

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: its captions have words that no pair knows."""
        return super().unfed(dataset) or unread(self.extractor, dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the pair."""
        super().prepare(surroundings)
        self.encoder = PairReader(self.extractor, surroundings.device)
