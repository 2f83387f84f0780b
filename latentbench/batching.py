"""Fixed-size batches: on a CPU a network's output for an image depends on the batch's size."""

import math
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


def even_batches(count: int, size: int) -> Iterator[tuple[list[int], int]]:
    """Yield `padded_batches` of at most `size`, as few and as small as they can be.

    Padding costs as much as images do: 16 images at a batch size of 32 are one batch of 16.

    Example:
        >>> [len(indices) for indices, _ in even_batches(33, 32)]
        [17, 17]
    """
    number = math.ceil(count / size)
    yield from padded_batches(count, math.ceil(count / max(number, 1)) or size)


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
