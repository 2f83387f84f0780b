"""Noise levels and predictions, against diffusers' DDIMScheduler."""

import pytest
import torch
from diffusers import DDIMScheduler

from latentbench.errors import BadInput
from latentbench.parameterization import (
    KINDS,
    Grid,
    prediction_error,
    split_prediction,
    transition,
    variance_preserving_grid,
)


def ddim(n: int = 10, **config) -> tuple[DDIMScheduler, Grid]:
    scheduler = DDIMScheduler(clip_sample=False, **config)
    scheduler.set_timesteps(n)
    final = float(scheduler.final_alpha_cumprod)
    timesteps = scheduler.timesteps.tolist()
    return scheduler, variance_preserving_grid(scheduler.alphas_cumprod, timesteps, final)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_split_prediction_is_what_ddim_makes_of_the_output(kind):
    scheduler, grid = ddim(prediction_type=kind)
    x, out = torch.randn(2, 2, 3, 4, 4)
    for i in (0, 5, 9):
        alpha, sigma = grid.levels(i, x)
        x0, eps = split_prediction(kind, out, x, alpha, sigma)
        theirs = scheduler.step(out, scheduler.timesteps[i], x)
        torch.testing.assert_close(x0, theirs.pred_original_sample, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alpha * x0 + sigma * eps, x, rtol=1e-4, atol=1e-4)


def test_flow_velocity_is_eps_minus_x0():
    x0, eps = torch.randn(2, 2, 3, 4, 4)
    t = torch.tensor([0.1, 0.9]).reshape(2, 1, 1, 1)
    found = split_prediction("flow", eps - x0, (1 - t) * x0 + t * eps, 1 - t, t)
    torch.testing.assert_close(found, (x0, eps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_prediction_is_that_of_the_networks_own_output(kind):
    """At a level without signal too, where velocities say something of x0, and eps nothing."""
    noise = [0.3, 1.0] if kind in ("v_prediction", "flow") else [0.3, 0.9]
    sigma = torch.tensor(noise).reshape(2, 1, 1, 1)
    alpha = 1 - sigma if kind == "flow" else (1 - sigma**2).sqrt()
    z0, eps, error = torch.randn(3, 2, 3, 4, 4)
    output = {"epsilon": eps, "sample": z0, "v_prediction": alpha * eps - sigma * z0,
              "flow": eps - z0}[kind]  # fmt: skip
    found = split_prediction(kind, output + error, alpha * z0 + sigma * eps, alpha, sigma)
    own = prediction_error(kind, found, (z0, eps), alpha, sigma)
    torch.testing.assert_close(own, error, rtol=1e-4, atol=1e-5)
    if kind == "epsilon":
        assert torch.equal(own, output + error - eps)


def test_unknown_prediction_type_names_the_nearest():
    one = torch.ones(1)
    with pytest.raises(BadInput, match="did you mean epsilon") as error:
        split_prediction("epsilom", one, one, one, one)
    assert all(kind in str(error.value) for kind in KINDS)
    with pytest.raises(BadInput, match="did you mean flow"):
        prediction_error("flows", (one, one), (one, one), one, one)


@pytest.mark.parametrize("n", [1, 7, 10, 50])
@pytest.mark.parametrize("to_one", [True, False])
def test_grid_visits_the_schedulers_levels(n, to_one):
    scheduler, grid = ddim(n, set_alpha_to_one=to_one, steps_offset=1)
    assert grid.n == n and len(grid.alpha) == n + 1
    levels = torch.cat([scheduler.alphas_cumprod[scheduler.timesteps],
                        scheduler.final_alpha_cumprod.reshape(1)])  # fmt: skip
    torch.testing.assert_close(grid.alpha**2, levels.double())
    torch.testing.assert_close(grid.alpha**2 + grid.sigma**2, torch.ones(n + 1).double())
    assert (grid.sigma[-1] == 0) == to_one


@pytest.mark.parametrize("n", [7, 10, 50])
def test_noise_std_is_ddims(n):
    scheduler, grid = ddim(n)
    x = torch.zeros(1, dtype=torch.float64)
    for i, t in enumerate(scheduler.timesteps.tolist()):
        variance = float(scheduler._get_variance(t, t - 1000 // n))
        assert float(grid.noise_std(i, 0.7, x)) == pytest.approx(0.7 * variance**0.5, abs=1e-6)


def test_noise_std_holds_for_flow_levels():
    """Of x' = a' x0 + s' eps', the part of eps' that a chain with variance s_i draws afresh."""
    t = torch.linspace(1, 0, 6, dtype=torch.float64)[1:]
    grid = Grid(torch.arange(4), 1 - t, t)
    a, s, a_next, s_next = 1 - t[0], t[0], 1 - t[1], t[1]
    expected = s_next / s * (s**2 - (a / a_next) ** 2 * s_next**2).sqrt()
    found = grid.noise_std(0, 1.0, torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(found[0], expected)
    assert 0 < float(found) < float(s_next)


def test_levels_broadcast_one_level_or_one_per_row():
    _, grid = ddim()
    x = torch.zeros(3, 2, 4, 4)
    assert grid.levels(4, x)[0].shape == (1, 1, 1, 1)
    rows = grid.levels(torch.tensor([0, 4, 10]), x)[0]
    assert rows.shape == (3, 1, 1, 1) and rows.dtype == x.dtype
    assert rows.flatten().tolist() == grid.alpha[[0, 4, 10]].float().tolist()


FALLING = torch.linspace(1, 0, 11, dtype=torch.float64)
LEVELS = {
    "ddpm": ddim()[1],
    "zero terminal SNR": ddim(rescale_betas_zero_snr=True, timestep_spacing="trailing")[1],
    "flow": Grid(torch.arange(10), 1 - FALLING, FALLING),
}


@pytest.mark.parametrize("name", LEVELS)
def test_the_linear_step_is_that_of_the_sampler_and_leads_back(name):
    """x' = p x + q d for whatever is predicted of x = a x0 + s eps."""
    grid = LEVELS[name]
    assert (float(grid.alpha[0]) == 0) == (name != "ddpm")
    guess, eps = torch.randn(2, 1, 3, 4, 4, dtype=torch.float64)
    for i in range(grid.n):
        alpha, sigma = grid.levels(i, eps)
        x = alpha * guess + sigma * eps
        (p, q), d = grid.linear_step(i), grid.linear_direction(i, guess, eps)
        after, _ = transition(grid, i, guess, eps, 0.0)
        torch.testing.assert_close(p * x + q * d, after)
        torch.testing.assert_close((after - q * d) / p, x)


@pytest.mark.parametrize("timesteps", [[], [0, 500], [500, 500, 0]])
def test_timesteps_must_fall(timesteps):
    with pytest.raises(BadInput, match="must fall"):
        variance_preserving_grid(torch.linspace(0.9, 0.1, 1000), timesteps, 1.0)
