"""`forgetting_<judge>` and `bleed_<judge>`: what learning a subject does to all other images."""

from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader


class Forgetting(SampleMetric):
    """How a model's images of other captions change once it has learned a subject.

    Both images are made of one noise and of one caption that does not name the subject, one before
    and one after. `forgetting` is their learned perceptual distance: 0 where nothing was touched; a
    method that samples in a way of its own changes images by that too. `bleed` is the cosine of
    identity embeddings of the later image and the first reference, minus that of the earlier one:
    above 0, other people look more like the subject; 0 is right, and below it is no merit, so that
    it has no direction.

    Source: "DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation",
    section 3.3, language drift. Deviation: measured on pairs from one noise, not on the class.

    Args:
        extractor: judge that gives features and embeddings.

    Example:
        >>> list(Forgetting().figures)
        ['forgetting_zoo1', 'bleed_zoo1']
    """

    needs = frozenset({"before_after", "sources"})
    source = "DreamBooth, section 3.3 (language drift), on pairs of images from one noise"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def figures(self) -> dict[str, Figure]:
        """Distance and cosine."""
        by = f"without the subject's word, {self.extractor}"
        return {
            f"forgetting_{self.extractor}": Figure(
                f"perceptual distance of before and after, {by}", low=0.0, higher_is_better=False
            ),
            f"bleed_{self.extractor}": Figure(
                f"rise of the identity cosine with the subject, {by}", "", -2.0, 2.0
            ),
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return both figures of each row ``[b]``."""
        assert samples.before_after is not None and samples.sources is not None
        before, after = samples.before_after.unbind(1)
        subject = self.reader.identity(samples.sources)
        like = [(self.reader.identity(images) * subject).sum(-1) for images in (before, after)]
        values = (self.reader.distance(before, after), like[1] - like[0])
        return dict(zip(self.figures, values, strict=True))
