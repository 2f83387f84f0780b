"""Pictures of invented people against photos of real ones: best, worst and trap."""

from dataclasses import replace

import pytest
import torch
from planted import F, outputs_of, plant
from test_variation_error import FREE, PlainData

from latentbench.data.faces import factor_index
from metrics.pairs.invention_error import InventionError

ROWS, DRAWS, HAT = 40, 4, factor_index("hat")


def drawn(seed, draws=DRAWS):
    return torch.rand(ROWS, draws, F, generator=torch.Generator().manual_seed(seed))


def pictures(people, goal=1.0):
    found = torch.where(FREE, drawn(9), people)
    found[..., HAT] = goal
    return found


def errors(surroundings, draws, groups=1):
    metric, lacking = InventionError(), pictures(drawn(5, 1), 0.0)[:, 0]
    metric.prepare(replace(surroundings, dataset=PlainData()))
    wanted = lacking.clone()
    wanted[:, HAT] = 1
    for k in range(groups):
        samples = outputs_of(plant(lacking))
        metric.update(
            replace(
                samples,
                groups=(f"prompt {k}",) * ROWS,
                outputs=plant(draws.roll(k, 1)),
                sources=plant(lacking),
                truths=plant(pictures(drawn(6, 1))),
                factors=lacking,
                wanted=wanted[:, None].expand(-1, DRAWS, -1),
            )
        )
    return {name.removesuffix("_zoo1"): score for name, score in metric.compute().items()}


def test_best_people_who_differ_and_worst_a_crowd_and_one_face(surroundings):
    best = errors(surroundings, pictures(drawn(1, 1)), groups=2)
    assert best["character_error"].value == pytest.approx(0, abs=0.12)
    assert best["prompt_error"].value == pytest.approx(0, abs=1e-6)
    assert best["within_share"].value == pytest.approx(0, abs=1e-9)
    assert best["between_share"].value == pytest.approx(1, abs=0.12)
    assert best["invention_error"].low < best["invention_error"].value
    crowd = errors(surroundings, pictures(drawn(2)))
    assert crowd["character_error"].value == pytest.approx(1, abs=0.1)
    assert crowd["within_share"].value == pytest.approx(1, abs=0.1)
    one = errors(surroundings, pictures(drawn(1, 1)[:1]))
    assert one["character_error"].value == pytest.approx(1)
    assert one["within_share"].value == pytest.approx(0, abs=1e-9)
    deaf = errors(surroundings, pictures(drawn(1, 1), 0.0))
    assert deaf["prompt_error"].value == pytest.approx(1)
    assert deaf["invention_error"].value == pytest.approx(
        deaf["character_error"].value + deaf["prompt_error"].value
    )


def test_trap_too_much_variance_between_people_hides_none_within(surroundings):
    """People who are at the ends of all factors in half of their pictures."""
    wild = (drawn(1, 1) > 0.5).float().expand(-1, DRAWS, -1).clone()
    wild[:, ::2] = (drawn(2)[:, ::2] > 0.5).float()
    found = errors(surroundings, pictures(wild))
    assert found["between_share"].value == pytest.approx(0.5, abs=0.1)  # of photos' R
    assert found["character_error"].value == pytest.approx(5 / 6, abs=0.1)  # one pair in six


def test_trap_two_faces_that_take_turns_are_half_of_the_pairs(surroundings):
    """Their variance is that of real people or more, whoever they are."""
    one = (drawn(1, 1)[:1] > 0.5).float()
    two = torch.cat([one, 1 - one]).repeat(ROWS // 2, 1, 1)
    found = errors(surroundings, pictures(two))
    assert found["between_share"].value > 1.5
    assert found["distinct_share"].value == pytest.approx(0.5, abs=0.05)
    assert found["character_error"].value == pytest.approx(0.5, abs=0.05)
    best = errors(surroundings, pictures(drawn(1, 1)))
    assert best["distinct_share"].value > 0.97
