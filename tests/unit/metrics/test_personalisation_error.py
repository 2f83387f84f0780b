"""Pictures of a subject under a prompt, and of others afterwards: best, worst and trap."""

from dataclasses import replace

import pytest
import torch
from planted import F, outputs_of, plant
from test_variation_error import FREE, PlainData

from latentbench.data.faces import factor_index
from latentbench.errors import NotMeasurable
from metrics.pairs.forgetting import Forgetting
from metrics.pairs.personalisation_error import PersonalisationError

ROWS, DRAWS, HAT, SMILE = 24, 5, factor_index("hat"), factor_index("smile")


def drawn(seed):
    return torch.rand(ROWS, DRAWS, F, generator=torch.Generator().manual_seed(seed))


PEOPLE = drawn(0)[:, :1]


def photos(seed, goal=1.0, people=PEOPLE):
    """Return factors of photos of people with and without a hat and a smile."""
    found = torch.where(FREE, drawn(seed), people)
    found[..., [HAT, SMILE]] = goal
    return found


def errors(surroundings, draws):
    metric, lacking = PersonalisationError(), photos(1, 0.0)[:, 0]
    metric.prepare(replace(surroundings, dataset=PlainData()))
    wanted = lacking.clone()
    wanted[:, [HAT, SMILE]] = 1
    metric.update(
        replace(
            outputs_of(plant(lacking)),
            outputs=plant(draws),
            sources=plant(lacking),
            truths=plant(photos(2)),
            factors=lacking,
            wanted=wanted[:, None].expand(-1, draws.shape[1], -1),
        )
    )
    return {name.removesuffix("_error_zoo1"): s.value for name, s in metric.compute().items()}


def test_best_other_photos_as_asked_and_worst_each_aim_missed(surroundings):
    best = errors(surroundings, photos(3))
    assert best["subject"] == pytest.approx(0, abs=1e-3)
    assert best["prompt"] == pytest.approx(0, abs=1e-6)
    assert best["variety"] == pytest.approx(0, abs=0.1)
    assert best["personalisation"] == pytest.approx(sum(best.values()) / 2)
    other = errors(surroundings, photos(3, people=PEOPLE.roll(1, 0)))
    assert other["subject"] == pytest.approx(1, abs=0.15) and other["prompt"] < 1e-6
    deaf = errors(surroundings, photos(3, 0.0))
    assert deaf["prompt"] == pytest.approx(1) and deaf["subject"] < 1e-3
    one = errors(surroundings, photos(3)[:, :1].expand(-1, DRAWS, -1))
    assert one["variety"] == pytest.approx(1, abs=0.2) and one["prompt"] < 1e-6


def test_trap_a_ghost_of_a_thing_is_no_thing(surroundings):
    ghost, faint = photos(3), photos(3)
    ghost[..., HAT] = 0.5
    faint[..., SMILE] = 0.5  # graded: half of the way is half of the way
    missed = photos(3)
    missed[..., HAT] = 0.0
    found = [errors(surroundings, one)["prompt"] for one in (ghost, faint, missed)]
    assert found[0] == pytest.approx(found[2], abs=1e-5)
    assert found[1] == pytest.approx(found[2] / 2, abs=1e-5)


def test_one_draw_has_no_variety(surroundings):
    with pytest.raises(NotMeasurable, match="PersonalisationError needs two draws"):
        errors(surroundings, photos(3)[:, :1])


def test_forgetting_is_nothing_for_equal_pairs_and_bleed_is_the_subjects_face(surroundings):
    metric, subject, other = Forgetting(), plant(PEOPLE[:, 0]), plant(drawn(5)[:, 0])

    def measured(after):
        metric.reset()
        metric.prepare(surroundings)
        pairs = torch.stack([other, after], 1)
        metric.update(replace(outputs_of(other), sources=subject, before_after=pairs))
        return {name: s.value for name, s in metric.compute().items()}

    assert measured(other) == {"forgetting_zoo1": 0.0, "bleed_zoo1": 0.0}
    taken, changed = measured(subject), measured(plant(drawn(6)[:, 0]))
    assert taken["bleed_zoo1"] > 0.5 > 0.2 > abs(changed["bleed_zoo1"])
    assert taken["forgetting_zoo1"] > 0 and changed["forgetting_zoo1"] > 0


def test_trap_less_of_the_subject_than_before_is_not_ahead(surroundings):
    """A model that is driven away from the subject's face is changed as well: 0 is right."""
    metric, subject = Forgetting(), plant(PEOPLE[:, 0])
    metric.prepare(surroundings)
    away = torch.stack([subject, plant(drawn(5)[:, 0])], 1)
    metric.update(replace(outputs_of(subject), sources=subject, before_after=away))
    assert metric.compute()["bleed_zoo1"].value < -0.5
    assert metric.figures["bleed_zoo1"].higher_is_better is None
