"""`path_error_image`: the same question as `path_error_<judge>`, asked of the image."""

from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from metrics.networks.reader import Reader
from metrics.paths.path_error import JUMP, at_nearer_end, error_figure, even_path, undrawn

JUDGE = "zoo1"


class PathErrorImage(SampleMetric):
    """Perceptual distance of a path's frames to the even path of faces, as a share of a jump's.

    The root of the perceptual distance (which is a square) between each frame and the rendered face
    that is as far on the way between the two ends; the sum over frames and paths / the same sum for
    a path that stays at the nearer end and jumps in the middle. 0 is the even path of faces, 1 is
    no path at all, above 1 is harm. It sees ghosts, blur, noise and washed-out frames, uneven steps
    and ends that are not the asked ones.

    The judge is zoo1, always: so the column needs no judge's name.

    Source: this suite; possible since the data set draws faces.

    Raises:
        NotMeasurable: fewer than three frames.

    Example:
        >>> list(PathErrorImage().figures)
        ['path_error_image']
    """

    needs = frozenset({"truths"})
    fixed_networks = frozenset({JUDGE})
    source = "distance to the even path of rendered faces / that of a jump"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        return error_figure("image", f"perceptual distance of {JUDGE}")

    @property
    def ratios(self) -> dict[str, str]:
        """It is a share of the jump's distance."""
        return dict.fromkeys(self.figures, JUMP)

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(JUDGE, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distances of the frames and of the jump's frames ``[b, t]``."""
        answers = even_path(samples, type(self).__name__)
        return {
            "path_error_image": self._distance(samples.outputs, answers),
            JUMP: self._distance(at_nearer_end(answers), answers),
        }

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        return self.reader.distance(a, b).clamp_min(0).sqrt()
