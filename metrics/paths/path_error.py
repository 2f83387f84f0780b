"""`path_error_<judge>`: how far is a path from the even path of rendered faces?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples
from latentbench.zoo.answers import factor_distance, is_drawn
from latentbench.zoo.judges import JudgeName, reliability
from metrics.networks.readings import FactorMetric
from metrics.paths.frames import require_path

SMALLEST = 0.02  # of what a jump gives: a smaller difference does not matter
JUMP = "distance of a jump to the even path"


def error_figure(name: str, read: str) -> dict[str, Figure]:
    """Return the path's error, a share of the jump's.

    Args:
        name: what the figure's name ends in.
        read: how the distance is read, in words.

    Example:
        >>> list(error_figure("image", "perceptual distance of zoo1"))
        ['path_error_image']
    """
    what = f"distance of the frames to the even path of rendered faces / that of a jump, {read}"
    return {f"path_error_{name}": Figure(what, "", 0.0, None, False, smallest=SMALLEST)}


class PathError(FactorMetric):
    """Distance of a path's frames to the even path of rendered faces, as a share of a jump's.

    The answer of frame k of t is the face with factors (1 - s) f_a + s f_b, s = k / (t - 1), drawn
    by the data set; the first and the last are the images that were asked for. Per frame the root
    mean square over all known factors of (reading of the frame - reading of the answer), each
    factor's square weighted by how well the judge reads it; then the sum over frames and paths /
    the same sum for a path that stays at the nearer end and jumps in the middle. 0 is the even path
    of faces, 1 is no path at all, above 1 is harm. Ends that are not the asked ones count.

    A cross-fade reads as half of each face: take `path_error_image` for what no factor names.

    Source: this suite; possible since the data set draws faces.

    Args:
        extractor: judge that reads factors.

    Raises:
        NotMeasurable: fewer than three frames.

    Example:
        >>> list(PathError().figures)
        ['path_error_zoo1']
    """

    needs = frozenset({"truths"})
    source = "distance to the even path of rendered faces / that of a jump"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        return error_figure(self.extractor, f"factors read by {self.extractor}")

    @property
    def ratios(self) -> dict[str, str]:
        """It is a share of the jump's distance."""
        return dict.fromkeys(self.figures, JUMP)

    def unfed(self, dataset: Dataset) -> str | None:
        """Return why the data set cannot feed it: it draws no faces."""
        return super().unfed(dataset) or undrawn(dataset)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge, and how well it reads each factor."""
        super().prepare(surroundings)
        self.reliability = reliability(self.extractor)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distances of the frames and of the jump's frames ``[b, t]``."""
        answer = self.reader.factors(even_path(samples, type(self).__name__))
        nothing = torch.zeros(len(answer), 1, answer.shape[-1], dtype=torch.bool)
        to_answer = (answer, answer, self.reliability, nothing)
        return {
            name: factor_distance(self.reader.factors(samples.outputs), *to_answer)
            for name in self.figures
        } | {JUMP: factor_distance(at_nearer_end(answer), *to_answer)}


def undrawn(dataset: Dataset) -> str | None:
    """Return why there is no even path of rendered faces in this data set, or None."""
    if is_drawn(dataset):
        return None
    return f"needs rendered faces, which {type(dataset).__name__} does not draw"


def even_path(samples: Samples, asker: str) -> Float[Tensor, "b t 3 h w"]:
    """Return the frames of the even path of rendered faces.

    Raises:
        NotMeasurable: fewer than three frames; the message begins with `asker`.
    """
    assert samples.truths is not None
    require_path(samples.truths.shape[1], asker)
    return samples.truths


def at_nearer_end(path: Float[Tensor, "b t ..."]) -> Float[Tensor, "b t ..."]:
    """Return the path that stays at its first frame up to the middle, then at its last.

    Example:
        >>> at_nearer_end(torch.arange(5.0)[None])
        tensor([[0., 0., 0., 4., 4.]])
    """
    last = path.shape[1] - 1
    return path[:, [0 if 2 * k <= last else last for k in range(last + 1)]]
