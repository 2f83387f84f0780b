"""`inner_projection_<judge>`: are the inner frames of a path faces at all?"""

from jaxtyping import Float
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from latentbench.zoo.answers import PROJECTORS
from latentbench.zoo.judges import JudgeName
from metrics.networks.projection import Projector
from metrics.networks.readings import FactorMetric
from metrics.paths.frames import require_path
from metrics.paths.path_error import undrawn

FLOOR_N = 64  # real images whose distance is the floor


class InnerProjection(FactorMetric):
    """Perceptual distance of a path's inner frames to their projection onto the rendered faces.

    The projection of an image is the face with the factors that judges read on it, the mean of what
    zoo2 and zoo3 read. A frame that no rendered face explains is off the manifold: a cross-fade,
    the mean face, blur, noise and low contrast are all further from their projection than faces
    are. The value of a path is the mean over its inner frames of the root of the distance (which is
    a square). What the judges misread keeps even rendered faces above 0: the note gives the value
    of held-out real faces.

    It asks for realism alone: a path that jumps, or stands still, has it.

    Source: this suite; possible since the data set draws faces. Distances and shares of nearest
    real images in feature space (precision, density, the realism score) call blurred and mean faces
    real, since faces that lie between others do.

    Args:
        extractor: judge whose features give the distance.

    Raises:
        NotMeasurable: fewer than three frames.

    Example:
        >>> list(InnerProjection().figures)
        ['inner_projection_zoo1']
    """

    fixed_networks = frozenset(PROJECTORS)
    source = "distance to the rendering of the factors as read"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = (
            f"distance of inner frames to their rendering as read, perceptual of {self.extractor}"
        )
        name = f"inner_projection_{self.extractor}"
        return {name: Figure(what, "", 0.0, None, higher_is_better=False)}

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges, and measure real images."""
        super().prepare(surroundings)
        self.projected = Projector(surroundings)
        self.floor = self._floor()

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the mean distance of each path's inner frames ``[b]``."""
        require_path(samples.outputs.shape[1], "InnerProjection")
        inner = samples.outputs[:, 1:-1]
        return {name: self.distance(inner).mean(1) for name in self.figures}

    def compute(self) -> dict[str, Score]:
        """Return the mean over paths, with the value of real images."""
        note = f"held-out faces: {self.floor:.3g}"
        return {name: add_note(score, note) for name, score in super().compute().items()}

    def distance(self, images: Float[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n"]:
        """Return the root of the distance of images to their projections."""
        return self.reader.distance(images, self.projected(images)).clamp_min(0).sqrt().double()

    def _floor(self) -> float:
        """Return the mean distance of the last real images of the test split."""
        data = self.surroundings.dataset
        size = data.size("test")
        images = data.batch("test", range(max(0, size - FLOOR_N), size)).images
        networks = [self.reader.digest, *(reader.digest for reader in self.projected.readers)]
        key = content_hash("projection", networks, images)

        def make() -> dict[str, Tensor]:
            return {"floor": self.distance(images).mean()}

        return float(self.surroundings.cache.get_or_make("features", key, make)["floor"])
