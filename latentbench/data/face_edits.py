"""Edits that faces ask for by themselves: kinds of PIE-Bench, in words of a face's caption.

Each face has one edit, a function of its index and its factors: one word of its caption changes.
The answer is the face whose factor lies in the middle of what the new word means; of a thing that
is put on or taken off (`faces.THINGS`), the face with all of it or none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.data import faces
from latentbench.errors import unknown

ADD, DELETE = "add_object", "delete_object"
KINDS: Mapping[str, tuple[str, ...]] = {
    ADD: faces.THINGS,
    DELETE: faces.THINGS,
    "change_content": ("smile", "mouth_open", "age"),
    "change_pose": ("yaw",),
    "change_color": ("shirt",),
    "change_background": ("background",),
}
"""Kind of edit, named as in PIE-Bench -> the factors that it may change."""

LEAST = 0.4  # of a factor's range: the smallest change that is asked for
EDITED = 1200  # faces of a split, from the first, whose edits are listed by kind


@dataclass(frozen=True)
class FaceEdit:
    """What is asked of one face.

    Args:
        kind: one of `KINDS`.
        factor: the factor that changes.
        value: what it is afterwards, in [0, 1].
    """

    kind: str
    factor: str
    value: float


def edit_of(index: int, factors: Sequence[float]) -> FaceEdit:
    """Return the edit of a face: by its index, one of those that change it by `LEAST` or more.

    A thing that is half there is neither put on nor taken off.

    Args:
        index: of the face in its split.
        factors: in [0, 1], in the order of `faces.FACTORS`.

    Example:
        >>> edit_of(0, [0.0] * 20)
        FaceEdit(kind='add_object', factor='glasses', value=1.0)
    """
    possible = {kind: found for kind in KINDS if (found := tuple(_possible(kind, factors)))}
    kind = tuple(possible)[index % len(possible)]
    turn = index // len(possible)
    return possible[kind][turn % len(possible[kind])]


def edited(indices: Sequence[int], factors: Float[Tensor, "b f"]) -> Float[Tensor, "b f"]:
    """Return the factors of the answers.

    Example:
        >>> int((edited([0], torch.zeros(1, 20)) > 0).sum())
        1
    """
    wanted = factors.clone()
    for row, (index, known) in enumerate(zip(indices, factors.tolist(), strict=True)):
        edit = edit_of(index, known)
        wanted[row, faces.factor_index(edit.factor)] = edit.value
    return wanted


def of_kind(split: str, kind: str, correlation: float) -> tuple[int, ...]:
    """Return which of a split's first `EDITED` faces have an edit of a kind.

    Raises:
        BadInput: a kind that there is not.
    """
    if kind not in KINDS:
        raise unknown("kind of edit", kind, KINDS)
    return tuple(k for k, own in enumerate(_kinds(split, correlation)) if own == kind)


@cache
def _kinds(split: str, correlation: float) -> tuple[str, ...]:
    """Return the kinds of edit of a split's first faces."""
    factors = faces.sample_factors(split, torch.arange(EDITED), correlation).tolist()
    return tuple(edit_of(k, known).kind for k, known in enumerate(factors))


def _possible(kind: str, factors: Sequence[float]) -> Iterator[FaceEdit]:
    for name in KINDS[kind]:
        column = faces.factor_index(name)
        least = 1.0 if name in faces.THINGS else LEAST
        for value in _values(kind, faces.FACTORS[column]):
            if abs(value - factors[column]) >= least:
                yield FaceEdit(kind, name, value)


def _values(kind: str, factor: faces.Factor) -> tuple[float, ...]:
    if kind in (ADD, DELETE):
        return (float(kind == ADD),)
    return tuple(factor.value(word) for word in factor.words)
