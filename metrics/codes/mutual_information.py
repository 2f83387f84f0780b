"""Mutual information of codes and factors, both cut into bins of equal width."""

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.stats

from metrics.codes.code_metric import check_pairs
from metrics.jackknife import Array

Bins = npt.NDArray[np.int64]


def discretise(values: Array, bins: int) -> Bins:
    """Return the bin, 0..bins - 1, of each value; bins have equal width over the column's range.

    The edges are those of `numpy.histogram`, as in disentanglement_lib's `_histogram_discretize`,
    which counts from 1. Integers of at most `bins` neighbouring levels keep their levels apart.

    Args:
        values: ``[n, k]``.
        bins: number of bins.

    Example:
        >>> discretise(np.array([[0.0], [0.4], [1.0]]), 2).ravel().tolist()
        [0, 0, 1]
    """
    edges = [np.histogram(column, bins)[1][:-1] for column in values.T]
    pairs = zip(values.T, edges, strict=True)
    return np.stack([np.digitize(column, edge) - 1 for column, edge in pairs], 1)


def mutual_information(codes: Bins, factors: Bins, bins: int) -> Array:
    """Return the mutual information of each code with each factor ``[d, f]``, in nats.

    The plug-in estimate, as `sklearn.metrics.mutual_info_score`; biased upwards by about
    (cells - 1) / 2n.

    Args:
        codes: bins ``[n, d]``.
        factors: bins ``[n, f]``.
        bins: number of bins of either.
    """
    joint = (_one_hot(codes, bins).T @ _one_hot(factors, bins)).toarray() / len(codes)
    joint = joint.reshape(codes.shape[1], bins, factors.shape[1], bins)
    independent = joint.sum(3, keepdims=True) * joint.sum(1, keepdims=True)
    ratio = np.divide(joint, independent, out=np.ones_like(joint), where=joint > 0)
    found = (joint * np.log(ratio)).sum((1, 3))
    return np.where(found > np.finfo(float).eps, found, 0.0)  # rounding is not information


def by_chance(codes: Bins, factors: Bins, bins: int) -> Array:
    """Return the mean mutual information ``[d, f]`` over all orders of the codes' rows, in nats.

    Source: Vinh et al., "Information Theoretic Measures for Clusterings Comparison", theorem 4.3;
    what `sklearn.metrics.cluster.expected_mutual_information` gives of each pair. A cell of the
    joint histogram whose margins are a and b holds k of the n rows with the probabilities of a
    hypergeometric draw, so it adds a number that depends on a and b alone.
    """
    n = len(codes)
    margins = [
        np.stack([np.bincount(c, minlength=bins) for c in v.T]) for v in (codes, factors)
    ]  # [d, bins], [f, bins]
    (ours, at), (theirs, to) = (np.unique(m, return_inverse=True) for m in margins)
    a, b = ours[:, None, None], theirs[None, :, None]
    k = np.arange(1, max(1, min(ours.max(), theirs.max())) + 1)
    chance = scipy.stats.hypergeom.pmf(k, n, a, b)  # [a, b, k]
    cell = np.log(np.maximum(n * k / np.maximum(a * b, 1), np.finfo(float).tiny))
    adds = (chance * k / n * cell).sum(2)
    columns = [
        np.stack([np.bincount(row, minlength=len(values)) for row in index.reshape(m.shape)])
        for m, values, index in zip(margins, (ours, theirs), (at, to), strict=True)
    ]  # how often each column has each margin: [d, a], [f, b]
    return columns[0] @ adds @ columns[1].T


def entropy(values: Bins, bins: int) -> Array:
    """Return the entropy of each column ``[k]``, in nats."""
    counts = np.stack([np.bincount(column, minlength=bins) for column in values.T])
    return np.asarray(scipy.stats.entropy(counts, axis=1))


def information_table(codes: Array, factors: Array, bins: int, who: str) -> tuple[Array, Array]:
    """Return the mutual information ``[d, f]`` and the factors' entropies ``[f]``.

    Raises:
        BadInput: codes and factors do not belong together; the message begins with `who`.
    """
    check_pairs(codes, factors, who)
    z, y = discretise(codes, bins), discretise(factors, bins)
    return mutual_information(z, y, bins), entropy(y, bins)


def _one_hot(values: Bins, bins: int) -> scipy.sparse.csr_matrix:
    n, k = values.shape
    columns = (values + bins * np.arange(k)).ravel()
    rows = np.repeat(np.arange(n), k)
    return scipy.sparse.csr_matrix((np.ones(n * k), (rows, columns)), (n, k * bins))
