"""Extremes of a label, balanced over confounders."""

import pytest
import torch

from latentbench.errors import BadInput
from methods.directions.extremes import extreme_rows


def test_without_confounders_they_are_the_lowest_and_the_highest():
    label = torch.rand(20, generator=torch.Generator().manual_seed(0))
    low, high = extreme_rows(label, torch.zeros(20, 0), 5)
    order = label.argsort()
    assert low.tolist() == order[:5].tolist() and high.tolist() == order[-5:].tolist()


def test_each_class_gives_its_own_extremes():
    generator = torch.Generator().manual_seed(1)
    label, confounders = (
        torch.rand(200, generator=generator),
        torch.rand(200, 2, generator=generator),
    )
    low, high = extreme_rows(label, confounders, 8)
    for side in (low, high):
        classes = (confounders[side] > 0.5).long() @ torch.tensor([1, 2])
        assert sorted(classes.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not set(low.tolist()) & set(high.tolist())
    both = (confounders > 0.5).all(1).nonzero().flatten()
    top = both[label[both].argsort()[-2:]]
    assert set(top.tolist()) <= set(high.tolist())


def test_what_cannot_be_balanced_is_refused():
    label, confounder = torch.arange(10.0), torch.tensor([[1.0]] + [[0.0]] * 9)
    with pytest.raises(BadInput, match="multiple of 2"):
        extreme_rows(label, confounder, 3)
    with pytest.raises(BadInput, match="has 1 of the fit's images, balance needs 2"):
        extreme_rows(label, confounder, 2)
