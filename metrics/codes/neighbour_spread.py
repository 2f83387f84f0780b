"""`koleo_ratio` and `knn_overlap`: do codes keep apart from their neighbours as normal ones do?"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, jackknifed
from metrics.codes.spread import normal_values, with_normal
from metrics.jackknife import Array

BINS = 30
PER_DIMENSION, MOST = 5, 100  # the far neighbour is number min(5 d, 100)


class NeighbourSpread(CodeMetric):
    """Spread of codes from the distances to their neighbours; sees clusters, unlike the spectrum.

    Source: "Reliable Measures of Spread in High Dimensional Latent Spaces". `koleo_ratio`:
    Kozachenko and Leonenko's entropy estimate of the codes, scaled to a total variance of d, over
    that of normal codes of the same n and d; 1 is as spread as normal. Its size means nothing
    where the normal entropy is near 0, so read it against 1. `knn_overlap`: shared area of the
    histograms (30 bins) of the distances to the first and to the min(5 d, 100)-th neighbour; the
    note gives that of normal codes.

    The interval is the jackknife over 10 groups of images; leaving images out lengthens all
    distances to neighbours a little, so it is on the wide side.

    Example:
        >>> list(NeighbourSpread().figures)
        ['koleo_ratio', 'knn_overlap']
    """

    source = "Reliable Measures of Spread in High Dimensional Latent Spaces"
    needs = frozenset({"codes"})
    fewest = 20

    @property
    def figures(self) -> dict[str, Figure]:
        """Entropy ratio, and overlap of near and far distances."""
        return {
            "koleo_ratio": Figure("neighbour entropy / that of normal codes", "", None, None),
            "knn_overlap": Figure("overlap of near and far neighbours' distances", "", 0, 1),
        }

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return both figures; undefined where two codes are equal."""
        codes = rows["codes"]
        normal = normal_values(neighbour_spread, *codes.shape)["koleo_ratio"]

        def statistic(keep: np.ndarray) -> dict[str, float]:
            found = neighbour_spread(codes[keep])
            return found | {"koleo_ratio": found["koleo_ratio"] / normal}

        found = jackknifed(statistic, ids)
        overlap = with_normal({"knn_overlap": found["knn_overlap"]}, neighbour_spread, *codes.shape)
        return found | overlap


def neighbour_spread(codes: Array) -> dict[str, float]:
    """Return the entropy (nats, not yet a ratio) and the overlap of codes ``[n, d]``."""
    n, d = codes.shape
    variance = codes.var(0).sum()
    scaled = codes * np.sqrt(d / variance) if variance > 0 else codes
    far = min(PER_DIMENSION * d, MOST, n - 1)
    distances, _ = NearestNeighbors(n_neighbors=far + 1).fit(scaled).kneighbors(scaled)
    near = distances[:, 1]
    if not near.all():
        return {"koleo_ratio": np.nan, "knn_overlap": np.nan}
    return {"koleo_ratio": koleo(near), "knn_overlap": overlap(near, distances[:, far])}


def koleo(nearest: Array) -> float:
    """Return mean log(n rho) + log 2 + Euler's constant of the distances to nearest neighbours.

    The source's form: without the dimension's factor, which is the same for two sets of one d.
    """
    return float(np.log(len(nearest) * nearest).mean() + np.log(2) + np.euler_gamma)


def overlap(near: Array, far: Array) -> float:
    """Return the shared area of two histograms on their common range, 0 to 1.

    Example:
        >>> overlap(np.array([1.0, 2.0]), np.array([1.0, 2.0]))
        1.0
    """
    span = (float(min(near.min(), far.min())), float(max(near.max(), far.max())))
    counts = [np.histogram(x, BINS, span)[0] for x in (near, far)]
    return float(np.minimum(*counts).sum() / len(near))
