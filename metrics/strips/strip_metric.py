"""Base of metrics that read the things in strips, and what true strips read."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.data.faces import FACTOR_NAMES
from latentbench.metric import SampleMetric, Surroundings
from latentbench.types import Capability
from latentbench.zoo.answers import PROJECTORS
from latentbench.zoo.judges import JudgeName
from metrics.networks.reader import Reader
from metrics.networks.strip_windows import StripWindows

TRUE_STRIPS = 64  # held-out true strips that say what figures mean
SPLIT = "calibration"


@dataclass(frozen=True)
class Read:
    """What is read in the windows of strips.

    Attributes:
        factors: by the judge, in [0, 1], in the order of the data set's `member_factors`.
        unlike: root of the perceptual distance of each window to the thing that is read in it.
        windows: the windows themselves.
    """

    factors: Float[Tensor, "n k f"]
    unlike: Float[Tensor, "n k"]
    windows: Float[Tensor, "n k 3 h s"]


class StripMetric(SampleMetric):
    """Reads windows that hold one face each (`StripWindows`), of outputs and of true strips.

    Args:
        extractor: the judge.
    """

    at = "main"
    needs = frozenset({"prompts"})
    fixed_networks = frozenset(PROJECTORS)
    source = "this suite; possible since the data set draws strips"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__()
        self.extractor = extractor

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it has no strips of what judges read."""
        if Capability.STRIPS not in dataset.gives or dataset.member_factors != FACTOR_NAMES:
            return f"needs strips of faces, which {type(dataset).__name__} has not"
        return super().unfed(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges, and read true strips."""
        super().prepare(surroundings)
        data = surroundings.dataset
        last = data.size(SPLIT)
        self.true_index = range(last - TRUE_STRIPS, last)
        images = data.batch(SPLIT, self.true_index).images
        self.reader = Reader(self.extractor, surroundings)
        self.windows = StripWindows(surroundings, int(images.shape[-1]))
        names = data.member_factors
        self.shared = [names.index(name) for name in data.factor_names]
        self.own = [k for k, name in enumerate(names) if name not in data.factor_names]
        self.true_images = images
        self.true = self.read(images, self._true_places())

    def read(
        self, strips: Float[Tensor, "n 3 h w"], places: Int[Tensor, "n k"] | None = None
    ) -> Read:
        """Return what is read in the windows of strips, at the places where they are known."""
        found = self.windows.find(strips) if places is None else places
        windows = self.windows.cut(strips, found)
        gap = self.reader.distance(windows, self.windows.drawn(windows))
        return Read(self.reader.factors(windows), gap.clamp_min(0).sqrt().double(), windows)

    def _true_places(self) -> Int[Tensor, "n k"]:
        key = content_hash(
            "places of windows", [r.digest for r in self.windows.readers], self.true_images
        )

        def make() -> dict[str, Tensor]:
            return {"places": self.windows.find(self.true_images)}

        return self.surroundings.cache.get_or_make("features", key, make)["places"]

    def _named(self, name: str) -> str:
        return f"{name}_{self.extractor}"
