"""Base of distances of the inner frames of paths: to real images, and to the paths' own ends."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from metrics.paths.frames import FEWEST
from metrics.sets.feature_sets import FeatureSets, Set


class InnerDistance(FeatureSets):
    """Distance of inner frames to real images (`column`), and to the ends of all paths.

    Class attributes:
        prefix: name of the first column without the judge.
        ends: that of the second.
        what: what the distance is, in words.
    """

    ends: str
    what: str

    @abstractmethod
    def distance(self, first: Set, second: Set) -> Score:
        """Return the distance of two sets of (features, ids)."""

    @property
    def figures(self) -> dict[str, Figure]:
        """Distances to real images and to the ends."""
        what = f"{self.what} of inner frames, features of {self.extractor}"
        return {
            self.column: Figure(f"{what}, to real images", higher_is_better=False),
            f"{self.ends}_{self.extractor}": Figure(
                f"{what}, to the paths' ends", higher_is_better=False
            ),
        }

    def images(self, samples: Samples) -> Float[Tensor, "b t 3 h w"]:
        """Return all frames."""
        return samples.outputs

    def compute(self) -> dict[str, Score]:
        """Return both distances; None below two paths or three frames."""
        features, ids = self.collected()
        frames = len(ids) // max(1, len(self.seen))
        n = len(set(ids))
        if n < 2 or frames < FEWEST:
            short = Score(None, n, note=f"{n} paths of {frames} frames; needs 2 of {FEWEST}")
            return dict.fromkeys(self.figures, short)
        outer = [k for k in range(len(ids)) if k % frames in (0, frames - 1)]
        inner = [k for k in range(len(ids)) if k % frames not in (0, frames - 1)]
        parts = [(features[rows], [ids[k] for k in rows]) for rows in (inner, outer)]
        found = (self.distance(parts[0], self.reference()), self.distance(*parts))
        return {
            name: add_note(score, self.remark())
            for name, score in zip(self.figures, found, strict=True)
        }
