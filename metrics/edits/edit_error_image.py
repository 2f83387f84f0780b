"""`edit_error_image`: the same question as `edit_error_<judge>`, asked of the image."""

import torch
from torch import Tensor

from latentbench.metric import Figure, SampleMetric, Surroundings
from latentbench.types import Samples
from latentbench.zoo.answers import without_ghosts
from metrics.edits.edit_error import IDLE, error_figures
from metrics.networks.reader import Reader
from metrics.networks.readings import targets, things

JUDGE = "zoo1"


class EditErrorImage(SampleMetric):
    """Perceptual distance of the output to the rendered answer, as a share of the source's.

    The root of the perceptual distance (which is a square) between output and answer; the sum over
    images / the same sum for the untouched sources. 0 is perfect, 1 is what doing nothing gives,
    above 1 is harm. It sees what no factor names: blur, noise, ghosts. For things that are there or
    not, half of the way counts as no way, as in `edit_error_<judge>`.
    `inversion_error_image` is what the method's reconstruction alone has lost.

    The judge is zoo1, always: so the columns need no judge's name.

    Source: this suite; possible since the data set renders counterfactuals.

    Example:
        >>> list(EditErrorImage().figures)
        ['edit_error_image', 'inversion_error_image']
    """

    at = "main"
    fixed_networks = frozenset({JUDGE})
    needs = frozenset({"factors", "wanted", "truths", "sources"})
    source = "distance to the rendered answer / distance of the source to it"

    @property
    def figures(self) -> dict[str, Figure]:
        """The edit's error, and that of the reconstruction."""
        return error_figures("image", f"perceptual distance of {JUDGE}")

    @property
    def ratios(self) -> dict[str, str]:
        """Both are shares of the sources' distance."""
        return dict.fromkeys(self.figures, IDLE)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge."""
        super().prepare(surroundings)
        self.reader = Reader(JUDGE, surroundings)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distances of outputs and sources ``[b, s]`` and of reconstructions ``[b]``."""
        assert samples.sources is not None and samples.truths is not None
        answers, s = samples.truths, samples.truths.shape[1]
        if bool((answers == answers[:, :1]).all()):
            answers = answers[:, :1]
        source = samples.sources[:, None].expand_as(answers)
        idle = self._distance(source, answers).expand(-1, s)
        gap = self._distance(samples.outputs, samples.truths)
        thing = things(targets(samples, type(self).__name__), self.surroundings.dataset).any(-1)
        found = {"edit_error_image": torch.where(thing, without_ghosts(gap, idle), gap), IDLE: idle}
        if samples.reconstructions is not None:
            lost = self._distance(samples.reconstructions, samples.sources)
            found["inversion_error_image"] = lost
        return found

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        return self.reader.distance(a, b).clamp_min(0).sqrt()
