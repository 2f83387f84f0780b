"""`projection_<judge>`, `projection_inside_<judge>`: does an image show a face at all?"""

from jaxtyping import Float
from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.metric import Figure, Surroundings
from latentbench.statistics import add_note, mean_score
from latentbench.types import Samples, Score
from latentbench.zoo.answers import PROJECTORS
from latentbench.zoo.judges import JudgeName
from metrics.networks.projection import Projector
from metrics.networks.readings import FactorMetric
from metrics.paths.path_error import undrawn

TRUE = "projection of the true images"


class FaceProjection(FactorMetric):
    """Perceptual distance of outputs to their projection onto the rendered faces: realism.

    The projection of an image is the face with the factors that zoo2 and zoo3 read on it, drawn;
    the figure is the root of the distance (which is a square), as in `inner_projection_<judge>`.
    What no face explains is far from it: blur, noise, ghosts. What the judges misread keeps even
    true images above 0: the note gives their value.

    With `inside`, the projection replaces the output inside the mask alone. What was filled in must
    then be what the face around it has there: another face's part is far off, however real it is.

    Source: this suite; possible since the data set draws faces.

    Args:
        extractor: judge whose features give the distance.
        inside: compare inside the mask.

    Example:
        >>> list(FaceProjection(inside=True).figures)
        ['projection_inside_zoo1']
    """

    fixed_networks = frozenset(PROJECTORS)
    source = "distance to the rendering of the factors as read"

    def __init__(self, *, extractor: JudgeName = "zoo1", inside: bool = False) -> None:
        super().__init__(extractor=extractor)
        self.inside = inside
        self.needs = frozenset({"masks"} if inside else ())

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        where = " inside the mask" if self.inside else ""
        what = f"distance to the rendering as read{where}, perceptual of {self.extractor}"
        name = f"projection{'_inside' * self.inside}_{self.extractor}"
        return {name: Figure(what, "", 0.0, None, higher_is_better=False)}

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judges."""
        super().prepare(surroundings)
        self.projected = Projector(surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distances of outputs and true images ``[b, s]``."""
        (name,) = self.figures
        found = {name: self._distance(samples.outputs, samples)}
        if samples.truths is not None:
            found[TRUE] = self._distance(samples.truths, samples)
        return found

    def compute(self) -> dict[str, Score]:
        """Return the score; the note gives the true images'."""
        scores, (name,) = super().compute(), self.figures
        if TRUE in self.measured():
            true = mean_score(self.measured()[TRUE], self.seen.ids).value
            note = "" if true is None else f"true images read {true:.3g}"
            scores[name] = add_note(scores[name], note)
        return scores

    def _distance(
        self, images: Float[Tensor, "b s 3 h w"], samples: Samples
    ) -> Float[Tensor, "b s"]:
        faces = self.projected(images)
        if self.inside:
            assert samples.masks is not None
            faces = faces.where(samples.masks[:, None, None] > 0, images)
        return self.reader.distance(images, faces).clamp_min(0).sqrt().double()
