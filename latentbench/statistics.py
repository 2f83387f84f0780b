"""Scores: figures of rows that come in clusters.

Which interval is for which figure: `latentbench.intervals`, docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.intervals import Array, Kind, clustered_wilson, row_units
from latentbench.types import Score


def row_score(values: Tensor, ids: Sequence[str], kind: Kind) -> Score:
    """Return the score of a figure of this kind from values of rows, as `mean_score` does."""
    return (rate_score if kind is Kind.RATE else mean_score)(values, ids)


def mean_score(values: Tensor, ids: Sequence[str]) -> Score:
    """Return the mean over rows with its 95% interval over clusters.

    Rows with the same id are one cluster. NaN values are left out and counted in the note. The
    result does not depend on the order of the rows.

    Args:
        values: ``[rows]`` or ``[rows, k]``.
        ids: cluster of each row.

    Example:
        >>> mean_score(torch.ones(10), [str(i) for i in range(10)]).value
        1.0
    """
    sums, counts, note = _clusters(values, ids)
    if not len(sums):
        return Score(None, 0, note="no defined value")
    units = row_units(sums, counts)
    score = Score(float(sums.sum() / counts.sum()), units.n, note=note)
    if why_not := units.why_no_interval():
        return add_note(score, f"no interval: {why_not}")
    low, high = units.interval()
    return replace(score, low=low, high=high)


def rate_score(values: Tensor, ids: Sequence[str]) -> Score:
    """Return the share of rows that are 1, with its 95% Wilson interval over clusters.

    Args:
        values: 0, 1 or NaN, ``[rows]`` or ``[rows, k]``.
        ids: cluster of each row.

    Raises:
        BadInput: a value that is neither 0 nor 1.

    Example:
        >>> rate_score(torch.zeros(10), [str(i) for i in range(10)]).low
        0.0
    """
    table = _table(values)
    odd = table[np.isfinite(table) & (table != 0) & (table != 1)]
    if len(odd):
        raise BadInput(f"a rate takes rows of 0 and 1, got {odd[0]:g}; make the figure a mean")
    hits, rows, note = _clusters(values, ids)
    if not len(hits):
        return Score(None, 0, note="no defined value")
    low, high = clustered_wilson(hits, rows)
    return Score(float(hits.sum() / rows.sum()), len(hits), low, high, note)


def add_note(score: Score, *notes: str) -> Score:
    """Return the score with more said of it; empty notes are left out."""
    return replace(score, note="; ".join(filter(None, (score.note, *notes))))


def _table(values: Tensor) -> Array:
    """Return values as float64 ``[rows, k]``."""
    return (values if values.ndim > 1 else values[:, None]).flatten(1).double().cpu().numpy()


def _clusters(values: Tensor, ids: Sequence[str]) -> tuple[Array, Array, str]:
    """Return sum and count of the finite values of each cluster that has any, sorted by id.

    The third is a note on values that are not finite.
    """
    table = _table(values)
    names, cluster = np.unique(np.asarray(ids, dtype=object).astype(str), return_inverse=True)
    known = np.isfinite(table)
    sums, dropped = np.where(known, table, 0.0).sum(1), int((~known).sum())
    order = np.lexsort((sums, cluster))  # adding in one order: the same bytes in any order of rows
    total = np.bincount(cluster[order], sums[order], len(names)).astype(float)
    counts = np.bincount(cluster, known.sum(1).astype(float), len(names)).astype(float)
    note = f"{dropped} undefined values left out" if dropped else ""
    return total[counts > 0], counts[counts > 0], note
