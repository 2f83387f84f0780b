"""`taken_error_<judge>`, `kept_error_<judge>`: which half of a recombination is missed?"""

from torch import Tensor

from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples
from latentbench.zoo.judges import JudgeName, reliability
from metrics.networks.readings import FactorMetric, read_answers, targets

SMALLEST = 0.02  # of one half missed altogether: a smaller difference does not matter


class Taken(FactorMetric):
    """What was asked and what was not, each by itself: the two parts of `edit_error`.

    * `taken_error`: root mean square over the asked factors of (reading of the output - reading of
      the answer) / the same of the source. 0 is all taken, 1 is nothing; half of a thing that is
      there or not counts as nothing.
    * `kept_error`: the same over all other factors, weighted by how well the judge reads them, /
      what it is for two faces that have nothing to do with each other (the root of twice the
      variance of readings). 0 is all kept, 1 is somebody else in another scene; a reconstruction
      that loses something is told here.

    Source: this suite; possible since the data set renders counterfactuals.

    Args:
        extractor: the judge.

    Example:
        >>> list(Taken().figures)
        ['taken_error_zoo1', 'kept_error_zoo1']
    """

    at = "main"
    needs = frozenset({"factors", "wanted", "truths", "sources"})
    source = "distance to the rendered answer in the asked factors, and in the others"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """Both parts."""
        by = f"read by {self.extractor}"
        words = {
            "taken_error": f"distance to the answer in what was asked / the source's, {by}",
            "kept_error": f"distance to the answer in all else / that of two faces, {by}",
        }
        return {
            f"{name}_{self.extractor}": Figure(text, "", 0.0, None, False, smallest=SMALLEST)
            for name, text in words.items()
        }

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge, how well it reads each factor, and how faces differ."""
        super().prepare(surroundings)
        self.reliability, self.spread = reliability(self.extractor), self.sharpness().std

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return both errors of each row ``[b]``."""
        assert samples.truths is not None
        others = ~targets(samples, type(self).__name__) * self.reliability
        answer = read_answers(self.reader, samples.truths)
        gap = (self.reader.factors(samples.outputs) - answer).square()
        apart = 2 * self.spread.square()
        kept = ((others * gap).sum(-1) / (others * apart).sum(-1)).sqrt().mean(1)
        return dict(zip(self.figures, (self.far_from_asked(samples), kept.double()), strict=True))
