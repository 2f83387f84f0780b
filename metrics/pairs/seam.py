"""`seam`: does the border of a mask show?"""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.metric import Figure, SampleMetric
from latentbench.statistics import add_note, mean_score
from latentbench.types import Samples, Score
from metrics.pairs.pairwise import unit_range

SMALLEST = 1 / 255  # a grey level
TRUE = "seam of the true images"


class Seam(SampleMetric):
    """Jump across a mask's border beyond what its sides lead to expect, on images in [0, 1].

    For each pair of neighbouring pixels of which one is inside the mask and one outside, the
    absolute difference between their step and the mean of the steps just before and after it on
    the same line; mean over pairs and colours. A step of a plain colour is found whole. True images
    have edges of their own, along which holes may run: the note gives their value. A blur of
    everything has the least seam of all: read it beside the other figures, never alone.

    Source: Gallagher, "Jigsaw Puzzles with Pieces of Unknown Orientation", its compatibility of
    gradients: steps across a border against those beside it. Deviation: absolute differences in
    place of Mahalanobis distances.

    Example:
        >>> list(Seam().figures)
        ['seam']
    """

    needs = frozenset({"masks"})
    source = "Jigsaw Puzzles with Pieces of Unknown Orientation; absolute differences"

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "step across the mask's border beyond the steps beside it"
        return {"seam": Figure(what, "", 0.0, 2.0, False, smallest=SMALLEST)}

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the seams of outputs and true images ``[b, s]``; NaN without a border."""
        assert samples.masks is not None
        found = {"seam": _seam(samples.outputs, samples.masks)}
        if samples.truths is not None:
            found[TRUE] = _seam(samples.truths, samples.masks)
        return found

    def compute(self) -> dict[str, Score]:
        """Return the score; the note gives the true images'."""
        scores = super().compute()
        if TRUE in self.measured():
            true = mean_score(self.measured()[TRUE], self.seen.ids).value
            note = "" if true is None else f"true images read {true:.3g}"
            scores["seam"] = add_note(scores["seam"], note)
        return scores


def _seam(
    images: Float[Tensor, "b s 3 h w"], masks: Float[Tensor, "b h w"]
) -> Float[Tensor, "b s"]:
    total, count = 0.0, 0.0
    for axis in (-1, -2):
        border = _at_steps(masks.diff(dim=axis).abs() > 0, axis)[:, None].double()
        steps = unit_range(images).diff(dim=axis)
        n = steps.shape[axis]
        before, after = (steps.narrow(axis, k, n - 2) for k in (0, 2))
        beyond = (_at_steps(steps, axis) - (before + after) / 2).abs().mean(2)
        total = total + (beyond * border).sum((-2, -1))
        count = count + border.sum((-2, -1))
    return total / torch.as_tensor(count)


def _at_steps(steps: Tensor, axis: int) -> Tensor:
    """Return the steps that have one before and one after them."""
    return steps.narrow(axis, 1, steps.shape[axis] - 2)
