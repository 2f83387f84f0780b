"""`edit_error_<judge>`: how far is an edit from its answer, as a share of doing nothing?"""

import torch
from torch import Tensor

from latentbench.metric import Figure, Surroundings
from latentbench.types import Samples
from latentbench.zoo.answers import factor_distance
from latentbench.zoo.judges import JudgeName, reliability
from metrics.networks.readings import FactorMetric, read_answers, targets, things

SMALLEST = 0.02  # of what doing nothing gives: a smaller difference does not matter
IDLE = "distance of the source to the answer"


def error_figures(name: str, read: str) -> dict[str, Figure]:
    """Return the edit's error and the reconstruction's, both shares of doing nothing.

    Args:
        name: what the figures' names end in.
        read: how the distance is read, in words.

    Example:
        >>> list(error_figures("image", "perceptual distance of zoo1"))
        ['edit_error_image', 'inversion_error_image']
    """
    by = f"/ that of the source to the answer, {read}"
    words = {
        "edit_error": f"distance of the output to the answer {by}",
        "inversion_error": f"distance of the reconstruction to the source {by}",
    }
    return {
        f"{figure}_{name}": Figure(text, "", 0.0, None, False, smallest=SMALLEST)
        for figure, text in words.items()
    }


class EditError(FactorMetric):
    """Distance of the output to the rendered answer over all factors, as a share of the source's.

    Per image the root mean square over all known factors of (reading of the output - reading of
    the answer); then the sum over images / the same sum for the untouched sources. 0 is perfect, 1
    is what doing nothing gives, above 1 is harm. One judge reads both images, so its bias cancels.
    `inversion_error` is what the method's reconstruction alone has lost: its distance to the
    source, on the same scale.

    A factor's square is weighted by how well the judge reads it: the share of its variance that is
    explained on rendered faces, from the judge's card. Where the edit asks for a thing that is
    there or not (`Dataset.things`), half of the way counts as no way: `without_ghosts`. Of several
    answers (`Samples.answers`) the nearest counts, as a share of the source's distance to it.

    Source: this suite; possible since the data set renders counterfactuals.

    Args:
        extractor: judge that reads factors; not the one that chose the strengths.

    Example:
        >>> list(EditError().figures)
        ['edit_error_zoo1', 'inversion_error_zoo1']
    """

    at = "main"
    needs = frozenset({"factors", "wanted", "truths", "sources"})
    source = "distance to the rendered answer / distance of the source to it"

    def __init__(self, *, extractor: JudgeName = "zoo1") -> None:
        super().__init__(extractor=extractor)

    @property
    def figures(self) -> dict[str, Figure]:
        """The edit's error, and that of the reconstruction."""
        return error_figures(self.extractor, f"factors read by {self.extractor}")

    @property
    def ratios(self) -> dict[str, str]:
        """Both are shares of the sources' distance."""
        return dict.fromkeys(self.figures, IDLE)

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge, and how well it reads each factor."""
        super().prepare(surroundings)
        self.reliability = reliability(self.extractor)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the distances of outputs and sources ``[b, s]`` and of reconstructions ``[b]``."""
        assert samples.sources is not None
        edit, inversion = self.figures
        source = self.reader.factors(samples.sources)[:, None]
        output = self.reader.factors(samples.outputs)
        answers = [self._to_answer(one, output, source) for one in samples.answers()]
        far, idle = (torch.stack(parts) for parts in zip(*answers, strict=True))
        nearest = (far / idle).argmin(0, keepdim=True)
        found = {edit: far.gather(0, nearest)[0], IDLE: idle.gather(0, nearest)[0]}
        if samples.reconstructions is not None:
            kept = self.reader.factors(samples.reconstructions)[:, None]
            none = torch.zeros_like(source, dtype=torch.bool)
            to_source = (source, source, self.reliability, none)
            found[inversion] = factor_distance(kept, *to_source)[:, 0]
        return found

    def _to_answer(self, samples: Samples, output: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance of outputs to one answer, and that of the sources ``[b, s]``."""
        assert samples.truths is not None
        answer = read_answers(self.reader, samples.truths)
        asked = things(targets(samples, type(self).__name__), self.surroundings.dataset)
        to_answer = (answer, source, self.reliability, asked)
        return (
            factor_distance(output, *to_answer),
            factor_distance(source.expand_as(answer), *to_answer),
        )
