"""The two halves of a recombination: best, worst and trap."""

import pytest
import torch
from planted import F, outputs_of, plant

from metrics.edits.taken import Taken

FIRST = torch.rand(40, F, generator=torch.Generator().manual_seed(0))
SECOND = torch.rand(40, F, generator=torch.Generator().manual_seed(1))
ASKED = torch.arange(F) < 2
ANSWER = torch.where(ASKED, SECOND, FIRST)


@pytest.fixture
def errors(surroundings):
    def found(factors):
        metric = Taken()
        metric.prepare(surroundings)
        metric.update(
            outputs_of(
                plant(factors),
                truths=plant(ANSWER)[:, None],
                sources=plant(FIRST),
                factors=FIRST,
                wanted=ANSWER[:, None],
            )
        )
        scores = metric.compute()
        return scores["taken_error_zoo1"].value, scores["kept_error_zoo1"].value

    return found


def test_best_the_answer(errors):
    assert errors(ANSWER) == (0, 0)


def test_worst_each_image_misses_one_half(errors):
    assert errors(FIRST) == pytest.approx((1, 0), abs=1e-6)
    taken, kept = errors(SECOND)
    assert taken == pytest.approx(0, abs=1e-6) and kept == pytest.approx(1, abs=0.1)


def test_trap_what_happens_to_one_half_is_not_seen_by_the_other(errors):
    halfway = torch.where(ASKED, ANSWER, ANSWER.lerp(SECOND, 0.5))
    assert errors(halfway)[0] == pytest.approx(0, abs=1e-6)
    assert errors(halfway)[1] == pytest.approx(errors(SECOND)[1] / 2, rel=0.05)
    missed = torch.where(ASKED, FIRST.lerp(ANSWER, 0.25), ANSWER)
    assert errors(missed) == pytest.approx((0.75, 0), abs=0.15)
