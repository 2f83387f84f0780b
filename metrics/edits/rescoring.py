"""`rescore_<factor>_<judge>`: the matrix of what each edit does to each factor."""

import numpy as np
import torch
from torch import Tensor

from latentbench.data.faces import FACTOR_NAMES
from latentbench.metric import MAIN, MATCHED, Figure, Surroundings
from latentbench.types import Samples, Score
from metrics.codes.code_metric import Mask, jackknifed
from metrics.networks.readings import FactorMetric, targets


class Rescoring(FactorMetric):
    """Re-scoring matrix: mean change of every factor under every edit, in standard deviations.

    Cell (edit, factor) is the figure "rescore_<factor>/<edit>"; without an edit it is the mean
    over edits. A method that separates attributes has a large diagonal and little else:
    `rescore_selectivity` is, per edit, |change of the target| / sum of |changes| of all factors,
    taken of the row of means (chance moves cancel) and averaged over edits.

    Source: Shen et al., "Interpreting the Latent Space of GANs for Semantic Face Editing", section
    3.2, with known factors read by a judge for predicted scores, at matched strengths for a
    fixed step.

    Intervals: those of means over images; of the selectivity the jackknife over images.

    Args:
        extractor: judge that reads factors; not the one that matched the strengths.

    Example:
        >>> "rescore_smile_zoo1" in Rescoring().figures
        True
    """

    version = 2
    needs = frozenset({"factors", "wanted"})
    source = "Interpreting the Latent Space of GANs, section 3.2, with known factors"

    @property
    def figures(self) -> dict[str, Figure]:
        """A column of the matrix per factor, and its selectivity."""
        by = f"read by {self.extractor}"
        columns = {
            self._column(name): Figure(f"mean change of {name} under an edit, {by}", "sd")
            for name in FACTOR_NAMES
        }
        what = f"share of the target in the row of an edit, {by}"
        return columns | {f"rescore_selectivity_{self.extractor}": Figure(what, "", 0, 1, True)}

    def prepare(self, surroundings: Surroundings) -> None:
        """Load the judge and measure how factors vary."""
        super().prepare(surroundings)
        self.std = self.sharpness().std

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the change of every factor of each output ``[b, s]``."""
        change = self.read_edit(samples).change / self.std
        return {self._column(name): change[..., k] for k, name in enumerate(FACTOR_NAMES)}

    def kept(self, samples: Samples) -> dict[str, Tensor]:
        """Return the target of each row's edit."""
        assert samples.factors is not None and samples.wanted is not None
        change = (samples.wanted - samples.factors[:, None]).abs().amax(1)
        asked = targets(samples, type(self).__name__)[:, 0]
        return {"target": torch.where(asked, change, 0).argmax(1)}

    def compute(self) -> dict[str, Score]:
        """Return the columns' means, and the selectivity of the matrix."""
        values, seen = self.measured(), self.seen
        main, matched = max(int(seen.column(MAIN)[0]), 0), seen.column(MATCHED).bool().tolist()
        rows = [k for k in seen.order() if matched[k]]
        change = torch.stack([values[self._column(n)][rows, main] for n in FACTOR_NAMES], 1).numpy()
        edits, ids = np.array([seen.groups[k] for k in rows]), [seen.ids[k] for k in rows]
        targets = seen.column("target")[rows].numpy()
        name = f"rescore_selectivity_{self.extractor}"
        if not ids:
            return super().compute() | {name: Score(None, 0, note="no row reached the effect")}

        def statistic(keep: Mask) -> dict[str, float]:
            return {name: selectivity(change[keep], edits[keep], targets[keep])}

        return super().compute() | jackknifed(statistic, ids)

    def _column(self, factor: str) -> str:
        return f"rescore_{factor}_{self.extractor}"


def selectivity(change: np.ndarray, edits: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean over edits of the target's share in the row of absolute mean changes.

    Args:
        change: of every factor ``[n, f]``.
        edits: name of each row's edit ``[n]``.
        targets: index of each row's target ``[n]``.

    Example:
        >>> selectivity(np.array([[3.0, 1.0], [3.0, -1.0]]), np.array(["a", "a"]), np.zeros(2, int))
        1.0
    """
    shares = []
    for edit in np.unique(edits):
        rows = edits == edit
        row = np.abs(change[rows].mean(0))
        shares.append(row[targets[rows][0]] / row.sum() if row.sum() > 0 else 0.0)
    return float(np.mean(shares))
