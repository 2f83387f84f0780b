"""Intervals: percentile bootstrap over clusters for means. More estimators live with metrics."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from latentbench.types import Score

RESAMPLES = 2000
FEWEST = 8  # clusters below which a 95% bootstrap interval is not shown


def mean_score(values: Tensor, ids: Sequence[str]) -> Score:
    """Return the mean with its 95% percentile bootstrap interval over clusters.

    Rows with the same id are one cluster and are resampled together; NaN values are left out
    and counted in the note.

    Args:
        values: ``[rows]`` or ``[rows, k]``.
        ids: cluster of each row.

    Example:
        >>> mean_score(torch.ones(10), [str(i) for i in range(10)]).value
        1.0
    """
    table = values.double().cpu().numpy().reshape(len(ids), -1)
    order = {name: k for k, name in enumerate(sorted(set(ids)))}
    cluster = np.array([order[i] for i in ids])
    known = np.isfinite(table)
    sums = np.bincount(cluster, np.where(known, table, 0.0).sum(1), len(order))
    counts = np.bincount(cluster, known.sum(1), len(order))
    used = counts > 0
    sums, counts = sums[used], counts[used]
    n, dropped = len(sums), int((~known).sum())
    note = f"{dropped} undefined values left out" if dropped else ""
    if n == 0:
        return Score(None, 0, note="no defined value")
    value = float(sums.sum() / counts.sum())
    if n < FEWEST:
        why = f"no interval: {n} images, at least {FEWEST} needed"
        return Score(value, n, note="; ".join(filter(None, (note, why))))
    pick = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    means = sums[pick].sum(1) / counts[pick].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Score(value, n, float(low), float(high), note)
