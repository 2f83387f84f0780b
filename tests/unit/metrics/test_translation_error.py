"""Translations against the drawing of the same thing: best, worst and trap."""

from dataclasses import replace

import pytest
import torch
from planted import F, PlantedData, outputs_of, plant
from test_restoration import DrawnData

from latentbench.data.faces_dataset import FacesDataset
from latentbench.types import Capability
from metrics.pairs.translation_error import TranslationError
from metrics.sets.kernel_domain import DomainKernelDistance

PATTERN = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(9)) - 0.5
PATTERN[:, :3] = 0  # factors lie in the first lines


def here(factors):
    return plant(factors)


def there(factors):
    """The second domain: the same factors on a patterned ground."""
    return plant(factors, PATTERN.expand(*factors.shape[:-1], -1, -1, -1))


class TwoDomains(DrawnData):
    """Images that are their factors, in two styles."""

    gives = DrawnData.gives | {Capability.SECOND_DOMAIN}

    def batch(self, split, indices):
        batch = super().batch(split, indices)
        return replace(batch, images=here(batch.factors))

    def second_domain(self, split, indices):
        return there(self.batch(split, indices).factors)

    def second_size(self, split):
        return self.size(split)


FACTORS = torch.rand(40, F, generator=torch.Generator().manual_seed(0))


def errors(surroundings, outputs):
    metric = TranslationError()
    metric.prepare(replace(surroundings, dataset=TwoDomains()))
    metric.update(outputs_of(outputs, truths=there(FACTORS)[:, None], sources=here(FACTORS)))
    return {k.removesuffix("_zoo1"): s.value for k, s in metric.compute().items()}


def test_best_the_truth_and_worst_the_source_or_another_truth(surroundings):
    best, idle = errors(surroundings, there(FACTORS)), errors(surroundings, here(FACTORS))
    assert set(best.values()) == {0.0}
    assert idle["translated_content_error"] == 0
    assert idle["translation_error"] == idle["translated_style_error"] == pytest.approx(1)
    other = errors(surroundings, there(FACTORS.roll(1, 0)))
    assert other["translated_content_error"] == pytest.approx(1, abs=0.15)
    assert other["translated_style_error"] < 0.2


def test_trap_another_thing_in_the_first_domain_is_wrong_twice(surroundings):
    found = errors(surroundings, here(FACTORS.roll(1, 0)))
    assert found["translation_error"] == pytest.approx(2, abs=0.25)
    parts = found["translated_content_error"] + found["translated_style_error"]
    assert found["translation_error"] == pytest.approx(parts)


def test_trap_a_mix_of_both_domains_is_in_neither(surroundings):
    mixed = errors(surroundings, (here(FACTORS) + there(FACTORS)) / 2)
    pure = errors(surroundings, there(FACTORS))
    assert all(mixed[name] > value + 0.05 for name, value in pure.items())


def test_data_of_one_domain_do_not_feed_it(surroundings):
    assert "needs rendered faces" in TranslationError().unfed(PlantedData())
    assert TranslationError().unfed(FacesDataset(size=32)) is None
    assert "another domain" in DomainKernelDistance().unfed(PlantedData())


# ---------------------------------------------------------------- the domain without pairs


def kernel(surroundings, outputs):
    metric = DomainKernelDistance(reference_n=200)
    metric.prepare(replace(surroundings, dataset=TwoDomains()))
    metric.update(outputs_of(outputs))
    return metric.compute()["kd_domain_zoo1"]


def test_images_of_the_second_domain_are_near_it_whomever_they_show(surroundings):
    best, idle = (kernel(surroundings, draw(FACTORS)).value for draw in (there, here))
    assert abs(best) < 0.1 * idle
    assert kernel(surroundings, there(FACTORS.roll(1, 0))).value == pytest.approx(best)


def test_one_image_is_too_few(surroundings):
    assert kernel(surroundings, there(FACTORS[:1])).value is None
