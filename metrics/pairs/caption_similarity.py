"""`clipsim_<pair>`: does the output fit its caption, as an embedded text-image pair sees it?"""

from latentbench.data.dataset import Dataset
from latentbench.metric import Surroundings
from latentbench.zoo.text_image import JudgingPair
from metrics.networks.pair_reader import PairReader, unread
from metrics.pairs.clip_score import CaptionScore


class CaptionSimilarity(CaptionScore):
    """100 max(cos(image, caption), 0) with a text-image pair of this suite: CLIP score's twin.

    Source: Hessel et al., "CLIPScore: A Reference-free Evaluation Metric for Image Captioning".
    Deviation: the pair is trained in this suite, hence the name. ``clip2`` judges: no method and
    no model sees it.

    Args:
        extractor: the pair.

    Example:
        >>> CaptionSimilarity().column
        'clipsim_clip2'
    """

    source = "CLIPScore, with a text-image pair of this suite"

    def __init__(self, *, extractor: JudgingPair = "clip2") -> None:
        super().__init__()
        self.extractor, self.column = extractor, f"clipsim_{extractor}"

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: its captions have words that no pair knows."""
        return super().unfed(dataset) or unread(self.extractor, dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the pair."""
        super().prepare(surroundings)
        self.encoder = PairReader(self.extractor, surroundings.device)
