"""`id_<judge>` and `id_factor_error_<judge>`: is it still the same person?"""

from torch import Tensor

from latentbench.metric import Figure
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from metrics.networks.readings import FactorMetric

OWN = "factor error of the sources"


class IdentityPreservation(FactorMetric):
    """How well outputs keep the identity of their source.

    `id` is the mean cosine of identity embeddings of source and output. `id_factor_error` is the
    exact alternative: the mean absolute difference between the identity factors that the judge
    reads on the output and those that the source is known to have, in units of their range. Its
    note gives the judge's own error on the sources, which no method can beat.

    Source: Deng et al., "ArcFace", section 3 (cosine of normalised embeddings); the embedder is
    trained in this suite, hence the name.

    Where the source's factors are not known, as for generated sources, there is only the cosine.

    Args:
        extractor: judge that reads identity.

    Example:
        >>> list(IdentityPreservation().figures)
        ['id_zoo1', 'id_factor_error_zoo1']
    """

    needs = frozenset({"sources"})
    source = "ArcFace, section 3; absolute error of known identity factors"

    @property
    def figures(self) -> dict[str, Figure]:
        """Cosine and factor error."""
        cosine = f"cosine of identity embeddings of source and output, {self.extractor}"
        error = f"mean error of identity factors, read by {self.extractor}"
        return {
            f"id_{self.extractor}": Figure(cosine, low=-1.0, high=1.0, higher_is_better=True),
            f"id_factor_error_{self.extractor}": Figure(
                error, low=0.0, high=1.0, higher_is_better=False
            ),
        }

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return both figures of each output ``[b, s]``."""
        assert samples.sources is not None
        source, outputs = self.reader.identity(samples.sources), samples.outputs
        cosine = (self.reader.identity(outputs) * source[:, None]).sum(-1)
        if samples.factors is None:
            return {f"id_{self.extractor}": cosine}
        error = self._error(self.reader.factors(outputs), samples.factors[:, None])
        own = self._error(self.reader.factors(samples.sources), samples.factors)
        return dict(zip((*self.figures, OWN), (cosine, error, own), strict=True))

    def compute(self) -> dict[str, Score]:
        """Return both scores."""
        scores, error = super().compute(), f"id_factor_error_{self.extractor}"
        if error not in scores:
            return scores
        own = self.mean_of(OWN).value
        return scores | {error: add_note(scores[error], f"the sources themselves read {own:.4g}")}

    def _error(self, read: Tensor, known: Tensor) -> Tensor:
        data = self.surroundings.dataset
        columns = [k for k, n in enumerate(data.factor_names) if n not in data.attributes]
        return (read[..., columns] - known[..., columns]).abs().mean(-1)
