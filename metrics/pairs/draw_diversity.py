"""`draws_lpd_<judge>`: how different are draws of one image from each other?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import NotMeasurable
from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.statistics import add_note, mean_score
from latentbench.types import Samples, Score
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader

TRUE = "distance of true draws"


class DrawDiversity(SampleMetric):
    """Mean learned perceptual distance of two draws of one image.

    0 for copies. Noise has the most of all, so it is neither good nor bad by itself; where there
    are true draws the note gives their value. Works on any images.

    Source: "Blended Latent Diffusion", its batch diversity (pairwise LPIPS), with the distance of
    a judge of this suite.

    Args:
        extractor: judge that gives the features.

    Raises:
        NotMeasurable: fewer than two draws of an image.

    Example:
        >>> list(DrawDiversity().figures)
        ['draws_lpd_zoo1']
    """

    source = "Blended Latent Diffusion, batch diversity, with a learned distance of this suite"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = f"mean perceptual distance of two draws of one image, {self.extractor}"
        return {f"draws_lpd_{self.extractor}": Figure(what, low=0.0)}

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(self.extractor, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the mean distance of each image's draws, and of its true draws ``[b]``."""
        if samples.outputs.shape[1] < 2:
            raise NotMeasurable(
                f"DrawDiversity needs two draws of each image, got {samples.outputs.shape[1]}; "
                f"take benchmark=variation"
            )
        (name,) = self.figures
        found = {name: self._apart(samples.outputs)}
        if samples.truths is not None:
            found[TRUE] = self._apart(samples.truths)
        return found

    def compute(self) -> dict[str, Score]:
        """Return the score; the note gives that of true draws."""
        scores, (name,) = super().compute(), self.figures
        if TRUE in self.measured():
            true = mean_score(self.measured()[TRUE], self.seen.ids).value
            note = "" if true is None else f"true draws read {true:.3g}"
            scores[name] = add_note(scores[name], note)
        return scores

    def _apart(self, images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, " b"]:
        first, second = torch.combinations(torch.arange(images.shape[1])).unbind(1)
        return self.reader.distance(images[:, first], images[:, second]).mean(1)
