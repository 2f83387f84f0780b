"""ReNoise and AIDI: fixed-point inversion."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Batch, Space
from methods.inversion.ddim_inversion import DDIMInversion
from methods.inversion.renoise import ReNoise

PROMPT = "a face with hat"


def attached(editor, model):
    editor.attach(model, Streams(0), Cache(None))
    return editor


def error(editor, batch) -> float:
    return float((editor.decode(editor.invert(batch)) - batch.images).abs().mean())


@pytest.fixture
def batch(gaussian) -> Batch:
    return Batch(("0", "1"), gaussian.draw((PROMPT,) * 2), (PROMPT,) * 2)


def test_the_error_falls_with_iterations_and_acceleration(gaussian, batch):
    editors = [DDIMInversion(steps=20, convention="next")]
    editors += [ReNoise(steps=20, iterations=k) for k in (1, 3)]
    errors = [error(attached(editor, gaussian), batch) for editor in editors]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    fast = attached(ReNoise(steps=20, iterations=3, memory=2), gaussian)
    assert error(fast, batch) < errors[2] / 1.5


def test_it_costs_its_iterations(gaussian, batch):
    before = gaussian.evaluations.forward
    attached(ReNoise(steps=10, iterations=3), gaussian).invert(batch)
    assert gaussian.evaluations.forward - before == 2 * 10 * (1 + 3)


def test_the_mean_of_predictions_is_another_code(gaussian, batch):
    best, mean = (
        attached(ReNoise(steps=10, iterations=3, average=a), gaussian).invert(batch)
        for a in (None, [1, 4])
    )
    assert not torch.equal(best.parts[Space.NOISE], mean.parts[Space.NOISE])
    last = attached(ReNoise(steps=10, iterations=3, average=[3, 4]), gaussian).invert(batch)
    torch.testing.assert_close(last.parts[Space.NOISE], best.parts[Space.NOISE])


def test_an_average_has_two_ends_that_are_reached():
    with pytest.raises(BadInput, match="has 1 entries"):
        ReNoise(average=[1])
    with pytest.raises(BadInput, match="8 to 10"):
        ReNoise(iterations=1, average=[8, 10])
