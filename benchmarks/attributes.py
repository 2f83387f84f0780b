"""Edits of one attribute: their names, what they ask for, and the images far from it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated

import torch
from jaxtyping import Bool
from torch import Tensor

from latentbench.bounds import distinct, matches, not_empty
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.types import Edit

CHOICE = "calibration"  # split on whose images strengths are chosen
FAR = 0.75  # distance from its goal at which a factor is on the other side

Attribute = Annotated[str, matches(".+[+-]", "such as glasses+ or hat-")]
Attributes = Annotated[Sequence[Attribute], not_empty, distinct]


def edit_named(name: str) -> Edit:
    """Return the edit of a name, without words and prompts."""
    return Edit(name, name[:-1], 1 if name.endswith("+") else -1)


def general_edit(dataset: Dataset, name: str) -> Edit:
    """Return an edit as a fit receives it: with the words for before and after."""
    edit = edit_named(name)
    words = dataset.words(str(edit.attribute))
    if words is None:
        return edit
    return replace(edit, words=words if edit.sign > 0 else words[::-1])


def goal_of(name: str) -> float:
    """Return the value that an edit moves its attribute to."""
    return 1.0 if name.endswith("+") else 0.0


def column_of(dataset: Dataset, name: str) -> int:
    """Return which of the data's factors an edit moves."""
    return dataset.factor_names.index(name[:-1])


def asked_of(dataset: Dataset, names: Sequence[str], count: int) -> Bool[Tensor, "b f"]:
    """Return which factors are asked for, for each of so many images: those of these names."""
    asked = torch.tensor([factor in names for factor in dataset.factor_names])
    return asked.repeat(count, 1)


@cache
def far_images(dataset: Dataset, split: str, name: str, n: int) -> tuple[int, ...]:
    """Return the first n indices whose attribute is on the other side of where the edit goes.

    Raises:
        BadInput: the split has fewer.
    """
    column, found, start = column_of(dataset, name), [], 0
    while len(found) < n and start < dataset.size(split):
        index = range(start, min(start + 64, dataset.size(split)))
        factors = dataset.describe(split, index).factors
        assert factors is not None
        far = (factors[:, column] - goal_of(name)).abs() > FAR
        found += [i for i, take in zip(index, far.tolist(), strict=True) if take]
        start += 64
    if len(found) < n:
        setting = "calibration_n" if split == CHOICE else "n"
        raise BadInput(
            f"the benchmark asks for {n} images far from {name!r}, the split {split!r} has "
            f"{len(found)} among its {dataset.size(split)}; lower benchmark.{setting}"
        )
    return tuple(found[:n])
