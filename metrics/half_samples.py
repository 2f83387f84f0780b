"""Shares of sets: halves of the images that are compared with each other for an interval."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from metrics.jackknife import Array, groups

Masks = npt.NDArray[np.bool_]
GROUPS = 12  # of images, six of which make a half
DESIGN = "++-+++---+-"  # first row of the design; the others are its rotations
FEWEST = 2  # images of a group


def contrasts() -> Array:
    """Return which groups make each half: 11 orthogonal rows of six 1 and six -1.

    Source: Plackett and Burman, "The Design of Optimum Multifactorial Experiments", 12 runs.

    Example:
        >>> c = contrasts()
        >>> bool((c @ c.T == 12 * np.eye(11)).all()), float(abs(c.sum(1)).max())
        (True, 0.0)
    """
    first = np.array([1.0 if sign == "+" else -1.0 for sign in DESIGN])
    rows = [np.append(np.roll(first, shift), -1.0) for shift in range(len(first))]
    return np.stack(rows)


def halves(ids: Sequence[str]) -> Masks:
    """Return which rows are in each half, ``[22, n]``: both halves of each split in turn.

    Example:
        >>> halves([str(k) for k in range(24)]).sum(1).tolist() == [12] * 22
        True
    """
    first = contrasts()[:, groups(ids, GROUPS)] > 0
    return np.stack([first, ~first], 1).reshape(-1, len(ids))


def too_few_halves(*sets: Sequence[str], k: int) -> str:
    """Return why halves of these sets of ids have no k-th neighbours, or an empty string."""
    n = min(len(set(ids)) for ids in sets)
    least = GROUPS * max(FEWEST, -(-2 * (k + 1) // GROUPS))
    return f"no interval: {n} images, at least {least} needed on each side" if n < least else ""


def half_replicates(value: float, found: Array, is_share: bool) -> tuple[float, ...]:
    """Return replicates, one per group, whose jackknife variance is that of the halves.

    The two halves of a split are independent sets of half the size: their difference squared / 4
    estimates the variance at the whole size, of a figure whose variance falls as 1 / n. That is so
    of figures of nearest neighbours, for which the jackknife is too large: each image that goes in
    or out of a ball counts as if all that is left shared it. The splits are balanced half-samples,
    so that the replicates of a mean are its jackknife's. A share is nearer to an end in smaller
    sets; its differences are scaled by the binomial standard deviations of whole and halves.

    Source: McCarthy, "Pseudo-replication: Half Samples", for the balanced splits; Politis, Romano
    and Wolf, "Subsampling", chapter 2, for the change of size.

    Args:
        value: the figure, from all data.
        found: the figure of both halves of each split ``[22]``, in the order of `halves`.
        is_share: whether the figure is a share, in 0..1.

    Example:
        >>> half_replicates(0.5, np.full(22, 0.5), True)[:2]
        (0.5, 0.5)
    """
    gaps = found[0::2] - found[1::2]
    whole, half = value * (1 - value), float((found * (1 - found)).mean())
    scale = np.sqrt(whole / half) if is_share and whole > 0 and half > 0 else 1.0
    away = scale * (contrasts().T @ gaps) / 2  # of the pseudo-value of each group from the figure
    return tuple((value - away / (GROUPS - 1)).tolist())
