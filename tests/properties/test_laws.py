"""Laws of the core, over inputs that hypothesis looks for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latentbench.batching import padded_batches
from latentbench.parameterization import (
    KINDS,
    Grid,
    split_prediction,
    transition,
    variance_preserving_grid,
)
from latentbench.sampling.linear import lerp, orthogonalise, slerp
from latentbench.sampling.loop import guided, noise_to_level, predict
from latentbench.streams import Streams

settings.register_profile("laws", deadline=None, max_examples=50)
settings.load_profile("laws")

seeds = st.integers(0, 2**16)
angles = st.floats(0.02, 1.55)  # of (alpha, sigma) on the circle; pi / 2 is pure noise
names = st.lists(st.text(max_size=8), min_size=1, max_size=6, unique=True)


def draw(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def output(kind: str, x0, eps, alpha, sigma):
    """What an exact network of this kind returns."""
    return {
        "epsilon": eps,
        "sample": x0,
        "v_prediction": alpha * eps - sigma * x0,
        "flow": eps - x0,
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, angle=angles, flow=st.booleans())
def test_every_prediction_round_trips(kind, seed, angle, flow):
    x0, eps = draw(seed, 2, 2, 5)
    share = torch.tensor(angle / 1.6, dtype=torch.float64)
    alpha, sigma = (1 - share, share) if flow else (share.cos(), share.sin())
    found = split_prediction(
        kind, output(kind, x0, eps, alpha, sigma), alpha * x0 + sigma * eps, alpha, sigma
    )
    torch.testing.assert_close(found, (x0, eps), rtol=1e-9, atol=1e-9)


@given(seed=seeds, frames=st.integers(2, 9))
def test_path_ends_are_exact(seed, frames):
    a, b = draw(seed, 2, 3, 4, 4).float(), draw(seed + 1, 2, 3, 4, 4).float()
    w = torch.linspace(0, 1, frames)
    for path in (lerp(a, b, w), slerp(a, b, w)):
        assert path.shape == (2, frames, 3, 4, 4)
        assert torch.equal(path[:, 0], a) and torch.equal(path[:, -1], b)


@given(seed=seeds, w=st.floats(0, 1))
def test_slerp_keeps_the_norm_and_is_symmetric(seed, w):
    a, b = draw(seed, 3, 12), draw(seed + 1, 3, 12)
    b = b * (a.norm(dim=1) / b.norm(dim=1))[:, None]
    weight = torch.tensor([w], dtype=torch.float64)
    frame = slerp(a, b, weight)[:, 0]
    torch.testing.assert_close(frame.norm(dim=1), a.norm(dim=1), rtol=2e-3, atol=1e-9)
    torch.testing.assert_close(frame, slerp(b, a, 1 - weight)[:, 0], rtol=1e-7, atol=1e-7)


@given(seed=seeds, others=st.integers(1, 4))
def test_orthogonalised_is_orthogonal_and_a_projection(seed, others):
    v, V = draw(seed, 2, 4), draw(seed + 1, others, 2, 4)
    w = orthogonalise(v, V)
    torch.testing.assert_close(V.flatten(1) @ w.flatten(), torch.zeros(others).double())
    torch.testing.assert_close(orthogonalise(w, V), w)
    assert w.norm() <= v.norm() * (1 + 1e-9)


@given(seed=seeds, scale=st.floats(-3, 10))
def test_guidance_is_linear_in_its_scale(seed, scale):
    from latentbench.conformance import toy

    model = toy.GaussianModel(steps=10)
    x, grid = draw(seed, 2, 3, 8, 8), model.grid()
    yes, no = model.condition(("a face with hat",) * 2, 2), model.condition(None, 2)
    (x0_1, eps_1), (x0_0, eps_0) = (
        predict(model, x, grid, 4, guided(c, c, 1.0)) for c in (yes, no)
    )
    x0, eps = predict(model, x, grid, 4, guided(yes, no, scale))
    torch.testing.assert_close(eps, (1 - scale) * eps_0 + scale * eps_1)
    torch.testing.assert_close(x0, (1 - scale) * x0_0 + scale * x0_1)
    alpha, sigma = grid.levels(4, x)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x)


@given(seed=seeds, weight=st.floats(-2, 3), kind=st.sampled_from(["epsilon", "flow"]))
def test_x0_and_eps_agree_whatever_the_weights_add_up_to(seed, weight, kind):
    from latentbench.conformance import toy

    model = toy.GaussianModel(kind, steps=10)
    x, grid = draw(seed, 2, 3, 8, 8), model.grid()
    (term,) = guided(model.condition(None, 2), model.condition(None, 2), 1.0)
    terms = [term, type(term)("more", model.condition(("hat",) * 2, 2), weight)]
    x0, eps = predict(model, x, grid, 3, terms)
    alpha, sigma = grid.levels(3, x)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x, rtol=1e-5, atol=1e-5)


timesteps = st.lists(st.integers(0, 999), min_size=1, max_size=20, unique=True)


@given(timesteps=timesteps, final=st.floats(0.9991, 1), eta=st.floats(0, 1))
def test_grids_fall_and_leave_room_for_noise(timesteps, final, eta):
    schedule = torch.linspace(0.999, 0.005, 1000)
    grid = variance_preserving_grid(schedule, sorted(timesteps, reverse=True), final)
    assert (grid.alpha.diff() > 0).all() and (grid.sigma.diff() < 0).all()
    x = torch.zeros(1, dtype=torch.float64)
    stds = grid.noise_std(torch.arange(grid.n), eta, x)
    assert (stds >= 0).all() and (stds <= grid.sigma[1:] + 1e-12).all()


@given(seed=seeds, eta=st.floats(0, 1), flow=st.booleans())
def test_a_step_from_the_truth_lands_on_the_next_levels_law(seed, eta, flow):
    """With the true (x0, eps): mean + std z has signal alpha' and noise of variance sigma'^2."""
    sigma = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    grid = Grid(torch.tensor([2, 1]), 1 - sigma if flow else (1 - sigma**2).sqrt(), sigma)
    x0, eps = draw(seed, 2, 1, 6)
    mean, std = transition(grid, 0, x0, eps, eta)
    kept = (mean - grid.alpha[1] * x0) / eps
    torch.testing.assert_close(kept**2 + std**2, (sigma[1] ** 2).expand_as(kept))
    if eta == 0:
        torch.testing.assert_close(mean, noise_to_level(grid, x0, eps, 1))


@given(ids=names, seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_streams_do_not_depend_on_order_or_company(ids, seed, order):
    shuffled = list(ids)
    order.shuffle(shuffled)
    first = Streams(seed).normal("prior", ids, (3,))
    second = Streams(seed).normal("prior", shuffled, (3,))
    assert torch.equal(first, second[[shuffled.index(i) for i in ids]])
    assert len({tuple(row) for row in first.tolist()}) == len(ids)


@given(count=st.integers(0, 70), size=st.integers(1, 20))
def test_padded_batches_cover_each_index_once_in_order(count, size):
    batches = list(padded_batches(count, size))
    assert all(len(index) == size for index, _ in batches)
    assert [k for index, kept in batches for k in index[:kept]] == list(range(count))
    assert all(set(index[kept:]) <= {index[kept - 1]} for index, kept in batches)
