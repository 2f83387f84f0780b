"""`mig`: does one code alone hold each factor?"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np

from latentbench.bounds import between
from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, jackknifed, left_out, that_vary, top_gap
from metrics.codes.mutual_information import information_table
from metrics.jackknife import Array


class MutualInformationGap(CodeMetric):
    """Mutual information gap: 1 where each factor is in one code alone, 0 where two hold it.

    Source: Chen et al., "Isolating Sources of Disentanglement in VAEs", section 4.1: mean over
    factors of (I(z_1; v) - I(z_2; v)) / H(v), z_1 and z_2 the two most informative codes.
    Conventions of disentanglement_lib: 20 bins of equal width, nats. Continuous factors are cut
    into as many bins, so a perfect code scores 1 only if it is a linear function of the factor.
    Information spread over a rotation of the codes scores near 0 by design.

    The interval is the jackknife over 10 groups of images; the plug-in estimate of information is
    biased upwards at small n, in both terms of the gap.

    Args:
        bins: of codes and of factors.

    Example:
        >>> list(MutualInformationGap().figures)
        ['mig']
    """

    source = "Isolating Sources of Disentanglement in VAEs, section 4.1"

    def __init__(self, *, bins: Annotated[int, between(2, 1000)] = 20) -> None:
        super().__init__()
        self.bins = bins

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "information of the best code about a factor minus the second best's / its entropy"
        return {"mig": Figure(what, "", 0.0, 1.0, True)}

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the gap."""
        z, y = rows["codes"], rows["factors"]
        note = left_out(that_vary(y))
        return jackknifed(lambda keep: {"mig": mig(z[keep], y[keep], self.bins)}, ids, note)


def mig(codes: Array, factors: Array, bins: int = 20) -> float:
    """Return the mutual information gap; factors that do not vary are left out.

    Args:
        codes: ``[n, d]``.
        factors: ``[n, f]``, continuous or integer levels.
        bins: of codes and of factors.

    Example:
        >>> x = np.random.default_rng(0).uniform(size=(1000, 2))
        >>> round(mig(x, x), 2)
        0.94
    """
    information, entropies = information_table(codes, factors, bins, "mig")
    known = entropies > 0
    return float(np.mean(top_gap(information[:, known]) / entropies[known]))
