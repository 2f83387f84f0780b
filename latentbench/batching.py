"""Fixed-size batches: on a CPU a network's output for an image depends on the batch's size."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def padded_batches(count: int, size: int) -> Iterator[tuple[list[int], int]]:
    """Yield (indices, kept): always `size` indices, the last batch padded with its last index.

    Only the first `kept` results of a batch count.

    Example:
        >>> list(padded_batches(3, 2))
        [([0, 1], 2), ([2, 2], 1)]
    """
    for start in range(0, count, size):
        index = list(range(start, min(start + size, count)))
        yield index + [index[-1]] * (size - len(index)), len(index)


def map_batches(function: Callable[[Tensor], Tensor], rows: Tensor, size: int = 64) -> Tensor:
    """Apply a per-row function in padded batches of one size, so a row's bytes never change.

    Args:
        function: tensor ``[size, ...]`` to tensor ``[size, ...]``, row by row.
        rows: tensor ``[b, ...]``.
        size: rows a call.
    """
    parts = [function(rows[index])[:kept] for index, kept in padded_batches(len(rows), size)]
    return torch.cat(parts)


def take(values: Sequence[str] | None, index: Sequence[int]) -> tuple[str, ...] | None:
    """Return the picked entries of an optional sequence."""
    return None if values is None else tuple(values[k] for k in index)
