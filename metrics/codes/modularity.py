"""`modularity`: does each code speak of one factor alone?"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np

from latentbench.bounds import between
from latentbench.errors import BadInput
from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, chosen, jackknifed, left_out, that_vary
from metrics.codes.mutual_information import information_table
from metrics.jackknife import Array


class Modularity(CodeMetric):
    """Modularity: 1 where each code depends on one factor, 0 where all factors move it alike.

    Source: Ridgeway and Mozer, "Learning Deep Disentangled Embeddings with the F-Statistic Loss",
    section 3: per code 1 - sum of its squared mutual informations but the largest / (largest
    (f - 1)); mean over codes, codes without information count 0. Conventions of
    disentanglement_lib: 20 bins, nats. A factor may be held by many codes (a duplicated code keeps
    its 1: that is what `mig` and `sap` punish). Factors that do not vary are left out. At small n
    the bias of the information alone makes noise look unmodular.

    The interval is the jackknife over 10 groups of images.

    Args:
        bins: of codes and of factors.

    Example:
        >>> list(Modularity().figures)
        ['modularity']
    """

    version = 3
    source = "Learning Deep Disentangled Embeddings with the F-Statistic Loss, section 3"

    def __init__(self, *, bins: Annotated[int, between(2, 1000)] = 20) -> None:
        super().__init__()
        self.bins = bins

    @property
    def figures(self) -> dict[str, Figure]:
        """The one figure."""
        what = "1 - squared information of a code about all factors but its first, relative"
        return {"modularity": Figure(what, "", 0.0, 1.0, True)}

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the score."""
        z, y = rows["codes"], rows["factors"]

        def statistic(keep: np.ndarray) -> dict[str, float]:
            information, entropies = information_table(z[keep], y[keep], self.bins, "modularity")
            known = chosen(information, entropies > 0)
            return {"modularity": modularity(known) if known.shape[1] > 1 else np.nan}

        return jackknifed(statistic, ids, left_out(that_vary(y)))


def modularity(information: Array) -> float:
    """Return the modularity of a table of mutual informations ``[d, f]``.

    Raises:
        BadInput: fewer than two factors.

    Example:
        >>> modularity(np.eye(3))
        1.0
    """
    f = information.shape[1]
    if f < 2:
        raise BadInput(f"modularity compares factors: it takes at least 2, got {f}")
    squared = np.square(information)
    largest = squared.max(1)
    known = np.where(largest > 0, largest, 1.0)
    rest = (squared.sum(1) - largest) / (known * (f - 1))
    return float(np.where(largest > 0, 1 - rest, 0.0).mean())
