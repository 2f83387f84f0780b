"""`translation_error_<judge>`: the same thing, in the style of the other domain?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader
from metrics.paths.path_error import undrawn

SMALLEST = 0.02  # of what the source gives: a smaller difference does not matter
HELD_OUT, THINGS = "calibration", 32  # split and number of things that give the scale
IDLE = "distance of the source to the truth in style"


class TranslationError(SampleMetric):
    """How far a translation is from the true image of the other domain, in content and in style.

    * `translated_content_error`: distance to the same thing, drawn in whichever of the two domains
      is nearer, / the distance of two things in that domain. 0 is the source or the truth, 1 is
      another thing in either domain; what is drawn in neither counts in full. The distance is the
      root of the perceptual distance (which is a square).
    * `translated_style_error`: distance to the truth in style / that of the source. Style is the
      mean and the spread over the image of each feature, whatever its place. 0 is the truth, 1 is
      what the source gives.
    * `translation_error`: the sum. The source is at 1, the truth of something else a little above.

    Figures are sums over images / the sum of their sources' distances in style.

    No judge reads factors off drawings well, so no factor takes part.

    Source: this suite; possible since the data set draws both domains. Style: Huang and Belongie,
    "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", equation 13, on
    the unit-normalised features of a judge, levels taken together.

    Args:
        extractor: judge whose features give the distances.

    Example:
        >>> list(TranslationError().figures)[0]
        'translation_error_zoo1'
    """

    at = "main"
    needs = frozenset({"truths", "sources"})
    source = "distance to the thing in either domain, and of statistics of features to the truth's"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def figures(self) -> dict[str, Figure]:
        """The sum and its parts."""
        by = f"perceptual of {self.extractor}"
        words = {
            "translation_error": f"content error + style error, {by}",
            "translated_content_error": f"distance to the thing / that of another one, {by}",
            "translated_style_error": "statistics of features: distance to the truth / that of the "
            f"source, {self.extractor}",
        }
        return {
            f"{name}_{self.extractor}": Figure(text, "", 0.0, None, False, smallest=SMALLEST)
            for name, text in words.items()
        }

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    @property
    def ratios(self) -> dict[str, str]:
        """All are shares of the sources' distance in style."""
        return dict.fromkeys(self.figures, IDLE)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge, and measure how far things are apart in both domains."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)
        self.apart, self.apart_there = self._scale()

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the errors of each output times the source's distance in style ``[b, s]``."""
        assert samples.truths is not None and samples.sources is not None
        outputs, truths, sources = samples.outputs, samples.truths, samples.sources[:, None]
        here = self._distance(outputs, sources) / self.apart
        there = self._distance(outputs, truths) / self.apart_there
        idle = self._style_gap(sources.expand_as(truths), truths)
        content = torch.minimum(here, there) * idle
        style = self._style_gap(outputs, truths)
        found = zip(self.figures, (content + style, content, style), strict=True)
        return {**dict(found), IDLE: idle}

    def _distance(self, a: Tensor, b: Tensor) -> Float[Tensor, "..."]:
        return self.reader.distance(a, b).clamp_min(0).sqrt().double()

    def _style_gap(self, a: Tensor, b: Tensor) -> Float[Tensor, "b s"]:
        return (self.reader.style(a) - self.reader.style(b)).double().norm(dim=-1)

    def _scale(self) -> tuple[float, float]:
        """Return the mean distance of two things in each domain."""
        data = self.surroundings.dataset
        size = data.size(HELD_OUT)
        index = range(max(0, size - THINGS), size)
        domains = {
            "here": data.batch(HELD_OUT, index).images,
            "there": data.second_domain(HELD_OUT, index),
        }
        key = content_hash("translation", self.reader.digest, *domains.values())
        found = self.surroundings.cache.get_or_make(
            "features",
            key,
            lambda: {k: self._distance(x, x.roll(1, 0)).mean() for k, x in domains.items()},
        )
        return float(found["here"]), float(found["there"])
