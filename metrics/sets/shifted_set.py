"""`kd_delta_<judge>`, `fd_delta_<judge>`, `diversity_ratio_<judge>`: what a shift does to a set."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.distance import pdist
from torch import Tensor

from latentbench.metric import Figure
from latentbench.types import Samples, Score
from metrics.codes.code_metric import Mask, jackknifed
from metrics.jackknife import Array
from metrics.sets.feature_sets import FeatureSets
from metrics.sets.frechet import distance

FEWEST = 3  # seeds: pairs must be left when some are left out
PER_DIMENSION = 2  # seeds per feature dimension below which a Frechet distance says nothing


class ShiftedSet(FeatureSets):
    """Distances of shifted samples to real images, minus those of the unshifted samples.

    Per case: `kd_delta` is the difference of the unbiased kernel distances, in which the real
    images' own term cancels; `fd_delta` that of the Frechet distances, whose bias in n cancels in
    part, from 2 images per feature dimension on; `diversity_ratio` is the mean distance of two
    samples' features over that of unshifted samples: below 1 the shift collapses the set.

    The interval is the jackknife over 10 groups of seeds, shifted and unshifted sample of a seed
    left out together; real images are kept.

    Source: Binkowski et al., "Demystifying MMD GANs", section 4; Heusel et al., section 3.

    Args:
        extractor: judge that gives the features.
        reference_split: split of the real images.
        reference_n: number of real images.

    Example:
        >>> list(ShiftedSet().figures)
        ['kd_delta_zoo1', 'fd_delta_zoo1', 'diversity_ratio_zoo1']
    """

    prefix = "kd_delta"
    needs = frozenset({"sources"})
    source = "Demystifying MMD GANs, section 4; GANs Trained by a Two Time-Scale Update Rule, 3"
    fewest = FEWEST

    @property
    def figures(self) -> dict[str, Figure]:
        """Differences of distances, and the ratio of spreads."""
        by = f"features of {self.extractor}"
        figures = {
            "kd_delta": Figure(
                f"kernel distance minus the unshifted samples', {by}", "", None, None, False
            ),
            "fd_delta": Figure(
                f"Frechet distance minus the unshifted samples', {by}", "", None, None, False
            ),
            "diversity_ratio": Figure(f"mean distance of two samples / unshifted, {by}", "", 0.0),
        }
        return {f"{name}_{self.extractor}": figure for name, figure in figures.items()}

    def images(self, samples: Samples) -> Float[Tensor, "b 2 3 h w"]:
        """Return the shifted and the unshifted sample of each row."""
        assert samples.sources is not None
        return torch.cat([samples.headline(self.at)[:, :1], samples.sources[:, None]], 1)

    def compute(self) -> dict[str, Score]:
        """Return the figures of each case, as "figure/case"."""
        features, _ = self.collected()
        keys = [(self.seen.ids[k], self.seen.groups[k]) for k in self.seen.order()]
        pairs = features.reshape(len(keys), 2, -1)
        found: dict[str, Score] = {}
        for case in sorted({group for _, group in keys}):
            rows = [k for k, key in enumerate(keys) if key[1] == case]
            shifted, plain = pairs[rows].swapaxes(0, 1)
            ids = [keys[k][0] for k in rows]
            if len(ids) < self.fewest:
                few = Score(None, len(ids), note=f"{len(ids)} seeds, at least {self.fewest} needed")
                found |= {f"{name}/{case}": few for name in self.figures}
                continue
            scores = set_change(shifted, plain, self.reference()[0], ids)
            found |= {f"{name}_{self.extractor}/{case}": s for name, s in scores.items()}
        return found


def set_change(shifted: Array, plain: Array, real: Array, ids: Sequence[str]) -> dict[str, Score]:
    """Return what a shift does to a set of features, with intervals.

    Args:
        shifted: features of the shifted samples ``[n, d]``.
        plain: features of the same seeds unshifted ``[n, d]``.
        real: features of real images ``[m, d]``.
        ids: seed of each row.
    """
    towards_real = _kernel(shifted, real).mean(1) - _kernel(plain, real).mean(1)
    between = _kernel(shifted, shifted) - _kernel(plain, plain)
    enough = len(ids) >= PER_DIMENSION * real.shape[1]

    def statistic(keep: Mask) -> dict[str, float]:
        n, part = int(keep.sum()), between[np.ix_(keep, keep)]
        within = (part.sum() - np.trace(part)) / (n * (n - 1))
        found = {
            "kd_delta": float(within - 2 * towards_real[keep].mean()),
            "diversity_ratio": float(pdist(shifted[keep]).mean() / pdist(plain[keep]).mean()),
        }
        if enough:
            found["fd_delta"] = distance(shifted[keep], real) - distance(plain[keep], real)
        return found

    scores = jackknifed(statistic, ids)
    if not enough:
        note = f"{len(ids)} seeds for {real.shape[1]} feature dimensions; read kd_delta"
        scores["fd_delta"] = Score(None, len(ids), note=note)
    return scores


def _kernel(a: Array, b: Array) -> Array:
    """Return k(a, b) = (a.b / d + 1)³ of all pairs."""
    return (a @ b.T / a.shape[1] + 1) ** 3
