"""Fixed-point refinement of inversion steps."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.sampling.fixed_point import FixedPoint
from latentbench.sampling.inversion import ddim_invert
from latentbench.sampling.loop import generate, plain
from latentbench.types import Batch


def linear(slopes: list[float]):
    """y -> slope y + 1, a slope per row; the fixed point is 1 / (1 - slope)."""
    slope = torch.tensor(slopes)[:, None]
    return lambda y: slope * y + 1


def test_each_row_keeps_its_best_iterate():
    """The first row converges; the second diverges, and its first step is the best."""
    found = FixedPoint(20).solve(linear([0.5, -2.0]), torch.zeros(2, 1))
    assert found.flatten().tolist() == pytest.approx([2.0, 1.0], abs=1e-5)


def test_the_average_is_of_the_named_iterates():
    """From 0: 0, 1, 1.5, 1.75, and 0, 1, 0, 1."""
    found = FixedPoint(3, average=(1, 3)).solve(linear([0.5, -1.0]), torch.zeros(2, 1))
    assert found.flatten().tolist() == pytest.approx([1.25, 0.5])
    found = FixedPoint(3, average=(0, 4)).solve(linear([0.5, -1.0]), torch.zeros(2, 1))
    assert found.flatten().tolist() == pytest.approx([4.25 / 4, 0.5])


@pytest.mark.parametrize("average", [(0, 5), (3, 3), (-1, 2)])
def test_an_average_that_is_never_reached_is_refused(average):
    with pytest.raises(BadInput, match="not among 0 to 4"):
        FixedPoint(3, average=average)


def test_anderson_solves_a_linear_map_where_iteration_diverges():
    map_ = torch.tensor([[0.9, 0.5], [-0.7, -1.4]])
    exact = torch.linalg.solve(torch.eye(2) - map_, torch.ones(2))

    def step(y):
        return y @ map_.T + 1

    plain_, fast = (FixedPoint(5, memory=m).solve(step, torch.zeros(1, 2))[0] for m in (0, 3))
    assert float((fast - exact).abs().max()) < 1e-3 < float((plain_ - exact).abs().max())


def test_two_iterates_solve_a_line_exactly():
    """Anderson's combination of two is the secant's step."""
    found = FixedPoint(3, memory=1).solve(linear([-3.0]), torch.zeros(1, 1))
    assert float(found) == pytest.approx(0.25, abs=1e-5)


def test_rows_do_not_mix():
    step, start = linear([0.5, -0.9]), torch.zeros(2, 1)
    alone = linear([-0.9])
    for solver in (FixedPoint(4), FixedPoint(4, memory=2)):
        assert torch.equal(solver.solve(step, start)[1:], solver.solve(alone, start[1:]))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_inversion_becomes_exact(gaussian, kind):
    """What the sampler makes of the refined x_T is the image, whatever the network predicts."""
    gaussian.prediction_type = kind
    batch = Batch(("0", "1"), gaussian.draw(("hat", "smile")))
    terms = plain(gaussian.condition(None, 2))
    settings = {"steps": 20, "convention": "next"}
    if kind == "sample":  # says nothing of eps where there is no noise
        noise = torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(0))
        settings |= {"forward_noise": noise, "forward_steps": 1}
    grid, errors = gaussian.grid(20), []
    for fixed_point in (None, FixedPoint(1), FixedPoint(3, memory=2)):
        x = ddim_invert(gaussian, batch, Cache(None), fixed_point=fixed_point, **settings)
        end = generate(gaussian, x, terms, grid=grid, stop=19 if kind == "sample" else 20)
        target = batch.images
        if kind == "sample":
            alpha, sigma = grid.levels(19, target)
            target = alpha * target + sigma * noise
        errors.append(float((end - target).abs().mean()))
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]
