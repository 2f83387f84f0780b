"""`rel_*` and `abs_*`: do two spaces put the same images next to each other?"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from latentbench.bounds import Count
from latentbench.metric import Figure
from latentbench.statistics import add_note, mean_score
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric
from metrics.jackknife import Array, groups

DRAWS = 5  # of anchors
NOTHING = 1e-9  # length below which a code has no direction


class RelativeRepresentation(CodeMetric):
    """Two spaces compared by the cosines of their codes to the same anchor images.

    Source: Moschella et al., "Relative Representations Enable Zero-Shot Latent Space
    Communication", section 3, equation 2, and the comparison of section 4.1: r(x) =
    [cos(E(x), E(a_1)), ..., cos(E(x), E(a_k))]. Invariant to rotation, reflection and scale of
    either space; with `centred`, where the anchors' mean is taken off first, to translation as
    well. For each image, its nearest neighbours among all r_2 are searched from r_1(x):

    * `rel_jaccard`: intersection over union with the neighbours of r_2(x), itself included.
    * `rel_mrr`: reciprocal rank of the same image, 0 outside the K nearest.
    * `rel_cosine`: cosine of r_1(x) and r_2(x).

    `abs_*` are the same with the codes themselves, where both spaces have one dimension: the
    control that independently trained spaces fail. Means over both directions and five draws of
    anchors. Deviation: anchors are drawn uniformly (the source: stratified by class) from one half
    of the images, queries are the other half.

    The interval is that of a mean over queries, with the set that is searched kept; the note gives
    the standard deviation over draws of anchors.

    Args:
        anchors: number of anchors, at most half of the images.
        neighbours: K.
        centred: take the anchors' mean off both spaces.

    Example:
        >>> list(RelativeRepresentation(neighbours=5).figures)[:2]
        ['rel_jaccard_at_5', 'rel_mrr_at_5']
    """

    needs = frozenset({"codes", "other_codes"})
    source = "Relative Representations Enable Zero-Shot Latent Space Communication, 3 and 4.1"
    fewest = 8

    def __init__(
        self, *, anchors: Count = 256, neighbours: Count = 10, centred: bool = True
    ) -> None:
        super().__init__()
        self.anchors, self.neighbours, self.centred = anchors, neighbours, centred

    @property
    def figures(self) -> dict[str, Figure]:
        """Relative and absolute agreement."""
        k = self.neighbours
        found = {}
        for kind, what in (("rel", "relative representations"), ("abs", "codes themselves")):
            found |= {
                f"{kind}_jaccard_at_{k}": Figure(f"overlap of neighbours, {what}", "", 0, 1, True),
                f"{kind}_mrr_at_{k}": Figure(f"reciprocal rank of itself, {what}", "", 0, 1, True),
                f"{kind}_cosine": Figure(f"cosine of both, {what}", "", -1, 1, True),
            }
        return found

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return the figures; the absolute ones only where both spaces have one dimension."""
        one, other = rows["codes"], rows["other_codes"]
        queries = groups(ids, 2) == 0
        names = [i for i, asks in zip(ids, queries.tolist(), strict=True) if asks]
        k = min(self.neighbours, len(names))
        pool, count = np.flatnonzero(~queries), min(self.anchors, int((~queries).sum()))
        draws = []
        for seed in range(DRAWS):
            pick = np.sort(np.random.default_rng(seed).choice(pool, count, replace=False))
            a, b = (relative(x[queries], x[pick], self.centred) for x in (one, other))
            draws.append(agreement(a, b, k))
        found = self._scores("rel", np.stack(draws), names, f"{count} anchors")
        if one.shape[1] == other.shape[1]:
            plain = agreement(one[queries], other[queries], k)
            found |= self._scores("abs", plain[None], names, "")
        return found

    def _scores(self, kind: str, draws: Array, ids: Sequence[str], note: str) -> dict[str, Score]:
        """Return the scores of values ``[draws, 3, queries]``."""
        names = [name for name in self.figures if name.startswith(kind)]
        found = {}
        for name, values in zip(names, draws.swapaxes(0, 1), strict=True):
            sd = f"sd over {len(values)} draws {values.mean(1).std():.2g}" if note else ""
            score = mean_score(torch.from_numpy(values.mean(0)), ids)
            found[name] = add_note(score, note, sd, self._chance(name, len(ids)))
        return found

    def _chance(self, name: str, n: int) -> str:
        if "mrr" not in name:
            return ""
        reciprocals = 1 / np.arange(1, min(self.neighbours, n) + 1)
        return f"chance {reciprocals.sum() / n:.2g}"


def relative(codes: Array, anchors: Array, centred: bool) -> Array:
    """Return the cosines ``[n, k]`` of codes to anchors.

    Args:
        codes: ``[n, d]``.
        anchors: ``[k, d]``, the codes of the same images in every space.
        centred: take the anchors' mean off both.

    Example:
        >>> relative(np.array([[2.0, 0.0]]), np.eye(2), False).tolist()
        [[1.0, 0.0]]
    """
    mean = anchors.mean(0) if centred else 0.0
    return _unit(codes - mean) @ _unit(anchors - mean).T


def agreement(one: Array, other: Array, k: int) -> Array:
    """Return Jaccard overlap, reciprocal rank and cosine of each row ``[3, n]``, both directions.

    NaN where all codes of a space have one direction, or none.

    Args:
        one: ``[n, m]``, a row per image.
        other: ``[n, m]``, the same images in the other space.
        k: neighbours that are searched.
    """
    a, b = _unit(one), _unit(other)
    both = [_neighbours_agree(x, y, k) for x, y in ((a, b), (b, a))]
    found = np.stack([*np.mean(both, axis=0), (a * b).sum(1)])
    collapsed = min(np.ptp(x, axis=0).max() for x in (a, b)) < NOTHING  # all ties: any order agrees
    return np.full_like(found, np.nan) if collapsed else found


def _neighbours_agree(a: Array, b: Array, k: int) -> Array:
    """Return overlap and reciprocal rank ``[2, n]`` of searching b's rows from a's."""
    found, true = (np.argsort(-(x @ b.T), axis=1, kind="stable")[:, :k] for x in (a, b))
    shared = (found[:, :, None] == true[:, None]).any(2).sum(1)
    hits = found == np.arange(len(a))[:, None]
    reciprocal = (hits / np.arange(1, k + 1)).sum(1)
    return np.stack([shared / (2 * k - shared), reciprocal])


def _unit(rows: Array) -> Array:
    """Return rows of unit length; a row that holds nothing but rounding becomes zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(length > NOTHING, rows / np.where(length > NOTHING, length, 1.0), 0.0)
