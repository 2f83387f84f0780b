"""Draws of one image against photos of the same person: best, worst and trap."""

from dataclasses import replace

import pytest
import torch
from planted import F, outputs_of, plant
from test_restoration import DrawnData

from latentbench.data.faces import ATTRIBUTES, FACTOR_NAMES
from latentbench.errors import NotMeasurable
from metrics.pairs.draw_diversity import DrawDiversity
from metrics.pairs.variation_error import VariationError

FREE = torch.tensor([name in ATTRIBUTES for name in FACTOR_NAMES])


class PlainData(DrawnData):
    """Images that are their factors, and nothing else."""

    def batch(self, split, indices):
        batch = super().batch(split, indices)
        return replace(batch, images=plant(batch.factors))


def drawn(seed, n=40, draws=6):
    return torch.rand(n, draws, F, generator=torch.Generator().manual_seed(seed))


PEOPLE = drawn(0)[:, 0]


def photos(seed, people=PEOPLE):
    return plant(torch.where(FREE, drawn(seed), people[:, None]))


def measured(metric, surroundings, draws):
    metric.prepare(replace(surroundings, dataset=PlainData()))
    ids = outputs_of(draws[:, 0])
    metric.update(replace(ids, outputs=draws, truths=photos(1), factors=PEOPLE))
    return {name.removesuffix("_zoo1"): s.value for name, s in metric.compute().items()}


def errors(surroundings, draws):
    return measured(VariationError(), surroundings, draws)


def test_best_other_photos_of_the_person_and_worst_copies_and_another_person(surroundings):
    best = errors(surroundings, photos(2))
    assert best["content_error"] == pytest.approx(0, abs=1e-3)
    assert best["spread_error"] == pytest.approx(0, abs=0.08)
    copies = errors(surroundings, photos(2)[:, :1].expand(-1, 6, -1, -1, -1))
    assert copies["content_error"] == pytest.approx(0, abs=1e-3)
    assert copies["spread_error"] == pytest.approx(1, abs=0.1)
    other = errors(surroundings, photos(2, PEOPLE.roll(1, 0)))
    assert other["content_error"] == pytest.approx(1, abs=0.1)
    assert other["spread_error"] == pytest.approx(0, abs=0.08)
    assert other["variation_error"] == pytest.approx(sum(other.values()) / 2)


def test_trap_more_spread_than_photos_have_is_no_merit(surroundings):
    wild = plant(torch.where(FREE, (drawn(2) > 0.5).float(), PEOPLE[:, None]))
    best, found = errors(surroundings, photos(2)), errors(surroundings, wild)
    assert found["spread_error"] > best["spread_error"] + 0.015


def test_trap_draws_that_differ_by_texture_do_not_spread(surroundings):
    one = photos(2)[:, :1].expand(-1, 6, -1, -1, -1)
    texture = torch.rand(one.shape, generator=torch.Generator().manual_seed(3)) - 0.5
    texture[..., :3, :] = 0  # factors lie in the first lines
    found = errors(surroundings, (one + 0.3 * texture).clamp(-1, 1))
    assert found["spread_error"] > 0.9 and found["content_error"] > 0.1
    seen = measured(DrawDiversity(), surroundings, (one + 0.3 * texture).clamp(-1, 1))
    assert seen["draws_lpd"] > 0.01


def test_one_draw_has_no_spread(surroundings):
    for metric in (VariationError(), DrawDiversity()):
        with pytest.raises(NotMeasurable, match="needs two draws of each image, got 1"):
            measured(metric, surroundings, photos(2)[:, :1])
