"""`mig`: does one code alone hold each factor?"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np

from latentbench.bounds import between
from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, Mask, jackknifed, left_out, that_vary, top_gap
from metrics.codes.mutual_information import by_chance, discretise, information_table
from metrics.jackknife import Array


class MutualInformationGap(CodeMetric):
    """Mutual information gap: 1 where each factor is in one code alone, 0 where two hold it.

    Source: Chen et al., "Isolating Sources of Disentanglement in VAEs", section 4.1: mean over
    factors of (I(z_1; v) - I(z_2; v)) / H(v), z_1 and z_2 the two most informative codes.
    Conventions of disentanglement_lib: 20 bins of equal width, nats. Continuous factors are cut
    into as many bins, so a perfect code scores 1 only if it is a linear function of the factor.
    Information spread over a rotation of the codes scores near 0 by design.

    Information is counted in a histogram, the plug-in estimate: at small n, unrelated numbers share
    some by chance. The gap takes it away where two codes share as much, and not where there is one
    code, or one that is spread over fewer bins. `mig_adjusted` is therefore the gap of I(z; v) - E,
    over H(v) - E of the best code, E being the mean information when the codes are dealt to the
    images at random ("Information Theoretic Measures for Clusterings Comparison", the adjustment
    for chance): still 1 for a perfect code, and about 0 for an unrelated one.

    The interval is the jackknife over 10 groups of images.

    Args:
        bins: of codes and of factors.

    Example:
        >>> list(MutualInformationGap().figures)
        ['mig', 'mig_adjusted']
    """

    version = 2
    source = "Isolating Sources of Disentanglement in VAEs, section 4.1"

    def __init__(self, *, bins: Annotated[int, between(2, 1000)] = 20) -> None:
        super().__init__()
        self.bins = bins

    @property
    def figures(self) -> dict[str, Figure]:
        """As published, and without what is shared by chance."""
        what = "information of the best code about a factor minus the second best's / its entropy"
        return {
            "mig": Figure(what, "", 0.0, 1.0, True),
            "mig_adjusted": Figure(f"{what}, all less what chance gives", "", None, 1.0, True),
        }

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the two gaps."""
        z, y = rows["codes"], rows["factors"]

        def gaps(keep: Mask) -> dict[str, float]:
            part = z[keep], y[keep], self.bins
            return {"mig": mig(*part), "mig_adjusted": adjusted_mig(*part)}

        return jackknifed(gaps, ids, left_out(that_vary(y)))


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


def adjusted_mig(codes: Array, factors: Array, bins: int = 20) -> float:
    """Return the gap of what information is above chance; see `MutualInformationGap`.

    Args:
        codes: ``[n, d]``.
        factors: ``[n, f]``, continuous or integer levels.
        bins: of codes and of factors.

    Example:
        >>> x = np.random.default_rng(0).uniform(size=(100, 2))
        >>> bool(mig(x[:, :1], x[:, 1:]) > 0.4 > 0.1 > adjusted_mig(x[:, :1], x[:, 1:]))
        True
    """
    information, entropies = information_table(codes, factors, bins, "mig")
    known = entropies > 0
    chance = by_chance(discretise(codes, bins), discretise(factors, bins), bins)[:, known]
    above = information[:, known] - chance
    best = above.argmax(0)
    room = entropies[known] - np.take_along_axis(chance, best[None], 0)[0]
    gap = top_gap(above)
    return float(np.mean(np.divide(gap, room, out=np.zeros_like(gap), where=room > 1e-12)))
