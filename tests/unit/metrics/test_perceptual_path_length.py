import pytest
import torch

from latentbench.errors import BadInput
from latentbench.types import Samples
from metrics.paths.path_length import PathLengthMetric, inner
from metrics.paths.ppl import resized

EPSILON = 0.01


class Squared(PathLengthMetric):
    column = "ppl_squared"

    def distance(self, a, b):
        return (a - b).square().mean((1, 2, 3))


def pairs(speed):
    """Return pairs of images whose pixels move at these speeds."""
    start = torch.zeros(len(speed), 1, 3, 8, 8)
    end = start + EPSILON * speed.reshape(-1, 1, 1, 1, 1)
    ids = tuple(f"{k:03d}" for k in range(len(speed)))
    steps = torch.tensor([0.0, EPSILON]).repeat(len(speed), 1)
    return Samples(ids, torch.cat([start, end], 1), ("all",) * len(ids), strengths=steps)


def score(speed):
    metric = Squared()
    metric.update(pairs(speed))
    return metric.compute()["ppl_squared"]


def test_a_linear_generator_has_its_squared_speed():
    assert score(torch.full((20,), 3.0)).value == pytest.approx(9, rel=1e-4)


def test_best_and_trap_a_constant_generator_scores_zero():
    assert score(torch.zeros(20)).value == 0


def test_a_jump_is_discarded_and_said_so():
    speed = torch.ones(200)
    speed[7] = 50
    found = score(speed)
    assert found.value == pytest.approx(1, rel=1e-4)
    assert "1 of 200 pairs discarded" in found.note


def test_quantiles_are_rounded_outwards_to_a_pair():
    assert inner(torch.arange(1, 201.0)).sum() == 198  # 1 below the 1% quantile, 1 above the 99%
    assert inner(torch.arange(1, 101.0)).all()


def test_discarded_pairs_are_not_in_the_table():
    speed = torch.ones(200)
    speed[7] = 50
    metric = Squared()
    metric.update(pairs(speed))
    table = metric.table()["ppl_squared"][:, 0]
    assert table.isnan().nonzero().flatten().tolist() == [7]
    assert float(table.nanmean()) == pytest.approx(metric.compute()["ppl_squared"].value)


def test_a_path_of_many_frames_is_refused():
    samples = pairs(torch.ones(4))
    longer = Samples(samples.ids, samples.outputs.repeat(1, 2, 1, 1, 1), samples.groups,
                     strengths=samples.strengths)  # fmt: skip
    with pytest.raises(BadInput, match="got 4 outputs; take the path_length benchmark"):
        Squared().update(longer)


def test_larger_images_are_averaged_and_smaller_ones_enlarged():
    x = torch.rand(1, 3, 128, 128)
    blocks = x.reshape(1, 3, 64, 2, 64, 2).mean((3, 5))
    assert torch.allclose(resized(x), blocks, atol=1e-6)
    assert resized(x[..., :8, :8]).shape == (1, 3, 64, 64)
