"""Figures of restored images: best, worst and trap."""

from dataclasses import replace

import pytest
import torch
from planted import F, PlantedData, outputs_of, plant

from latentbench.errors import BadInput, NotMeasurable
from latentbench.types import Capability
from metrics.pairs.face_projection import FaceProjection
from metrics.pairs.restoration_error import RestorationError
from metrics.pairs.seam import Seam


def images(n=8, size=16, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) - 0.5


def half(n=8, size=16):
    masks = torch.zeros(n, size, size)
    masks[:, :, : size // 2] = 1
    return masks


# ---------------------------------------------------------------- restoration error


def error(surroundings, outputs, true, given):
    metric = RestorationError()
    metric.prepare(surroundings)
    metric.update(outputs_of(outputs, truths=true[:, None], sources=given))
    return metric.compute()["restoration_error_image"].value


def test_the_true_image_is_0_and_the_given_one_1(surroundings):
    true, given = images(), images(seed=1)
    assert error(surroundings, true, true, given) == 0
    assert error(surroundings, given, true, given) == pytest.approx(1)


def test_it_is_a_ratio_of_sums_so_that_a_slight_damage_does_not_rule(surroundings):
    true, other = images(), images(seed=1)
    given = torch.cat([true[:1].lerp(other[:1], 0.01), other[1:]])
    outputs = torch.cat([other[:1], true[1:]])  # one image is spoilt, seven are right
    assert error(surroundings, outputs, true, given) < 0.5


def test_a_mean_over_images_hides_no_harm_elsewhere(surroundings):
    true, given = images(), images(seed=1)
    spoilt = torch.where(half()[:, None] > 0, true, -true)
    assert error(surroundings, spoilt, true, given) > 0.5


# ---------------------------------------------------------------- seam


def seam(outputs, masks, **more):
    metric = Seam()
    metric.update(outputs_of(outputs, masks=masks, **more))
    return metric.compute()["seam"]


def test_best_a_plain_slope_has_no_seam():
    slope = torch.linspace(-1, 1, 16).expand(8, 3, 16, 16)
    assert seam(slope, half()).value == pytest.approx(0, abs=1e-6)


def test_a_step_of_one_colour_is_found_whole_wherever_the_border_runs():
    flat, box = torch.zeros(8, 3, 16, 16), torch.zeros(8, 16, 16)
    box[:, 3:9, 4:12] = 1
    for masks in (half(), half().mT, box):
        assert seam(flat + 0.4 * masks[:, None], masks).value == pytest.approx(0.2)


def test_trap_edges_inside_and_outside_are_none_of_its_business():
    edges = torch.zeros(8, 3, 16, 16)
    edges[..., 2:4] = edges[..., 12:13] = 1
    assert seam(edges, half()).value == 0


def test_the_note_gives_the_true_images_and_a_mask_of_all_has_no_border():
    masks = half()
    masks[0] = 1
    true = 0.4 * half()[:, None]
    found = seam(torch.zeros(8, 3, 16, 16), masks, truths=true.expand(-1, 3, -1, -1)[:, None])
    assert found.n == 7 and "true images read 0.2" in found.note


# ---------------------------------------------------------------- projection


class DrawnData(PlantedData):
    """Images that are their factors, drawn."""

    gives = PlantedData.gives | {Capability.COUNTERFACTUALS}

    def render(self, factors):
        return plant(factors)


def projection(surroundings, outputs, inside=False, **more):
    metric = FaceProjection(inside=inside)
    metric.prepare(replace(surroundings, dataset=DrawnData()))
    metric.update(outputs_of(outputs, **more))
    (score,) = metric.compute().values()
    return score


def test_what_is_drawn_is_its_own_projection_and_texture_is_not(surroundings):
    drawn = plant(torch.rand(8, F, generator=torch.Generator().manual_seed(0)))
    assert projection(surroundings, drawn).value == pytest.approx(0, abs=1e-3)
    assert projection(surroundings, (drawn + 0.3 * images()).clamp(-1, 1)).value > 0.1


def test_inside_what_is_outside_the_mask_does_not_count(surroundings):
    drawn = plant(torch.rand(8, F, generator=torch.Generator().manual_seed(0)))
    masks = torch.zeros(8, 16, 16)
    masks[:, 8:] = 1  # the lower half; factors lie in the first lines
    for where, value in ((masks == 0, 0), (masks > 0, None)):
        spoilt = drawn + 0.3 * images() * (where & (torch.arange(16) > 2)[:, None])[:, None]
        spoilt = spoilt.clamp(-1, 1)
        found = projection(surroundings, spoilt, inside=True, masks=masks).value
        assert found == pytest.approx(0, abs=1e-3) if value == 0 else found > 0.05


def test_data_that_draw_no_faces_are_refused(surroundings):
    with pytest.raises(NotMeasurable, match="needs rendered faces, which PlantedData does not"):
        FaceProjection().prepare(surroundings)
    with pytest.raises(BadInput, match=r"FaceProjection needs Samples\.masks, got None"):
        projection(surroundings, images(), inside=True)
