"""Components named after labels."""

import torch

from methods.directions.matching import match_components


def test_a_label_gets_the_component_that_follows_it_best():
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(200, 3, generator=generator)
    noise = torch.randn(200, 4, generator=generator)
    scores = 0.1 * noise
    scores[:, 2] += labels[:, 0]
    scores[:, 0] -= labels[:, 1]
    scores[:, 1] += 0.5 * labels[:, 2]
    best, sign = match_components(scores, labels)
    assert best.tolist() == [2, 0, 1] and sign.tolist() == [1, -1, 1]


def test_a_component_that_never_moves_is_nobodys():
    labels = torch.linspace(0, 1, 10)[:, None]
    scores = torch.cat([torch.zeros(10, 1), 0.1 * labels.square()], 1)
    best, _ = match_components(scores, labels)
    assert best.tolist() == [1]
