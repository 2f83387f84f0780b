"""Potential flows: derivatives against written-out ones, what a fit teaches, and the flow."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.directions.potential_flows import PotentialFlows, potential, residual

DATA = toy.ToyData()
SIZE = 6
FIRST = Edit("direction 0", component=0)


def attached(model, **settings):
    editor = PotentialFlows(**{"count": 2, "batch": 8, "iterations": 0, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [])
    return editor


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def weights(gan):
    """Potentials in float64, on which differences can be taken."""
    return {k: v.double() for k, v in attached(gan)._potentials(SIZE).items()}


@torch.enable_grad()
def terms(u, z: torch.Tensor, t: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """u_t, u_tt and the Hessian of one code, by autograd on functions of one variable each."""
    at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    value = potential(u, 1, z[None], at[None])[0]
    (u_t,) = torch.autograd.grad(value, at, create_graph=True)
    (u_tt,) = torch.autograd.grad(u_t, at)
    hessian = torch.autograd.functional.hessian(
        lambda x: potential(u, 1, x[None], torch.tensor([t], dtype=torch.float64))[0], z
    )
    assert isinstance(hessian, torch.Tensor)
    return u_t.detach(), u_tt, hessian


def test_the_wave_equations_residual_has_no_bias(weights):
    """The mean over probes is the square of u_tt - c^2 Laplacian(u), code by code."""
    z, t = random(3, SIZE).double(), 2.0
    expected = []
    for code in z:
        _, u_tt, hessian = terms(weights, code, t)
        expected.append((u_tt - weights["c"][1, 0].square() * hessian.trace()).square())
    drawn = torch.Generator().manual_seed(1)
    signs = [torch.randint(2, (2, 3, SIZE), generator=drawn).double() * 2 - 1 for _ in range(300)]
    found = torch.stack([residual(weights, 1, z, t, "wave", p) for p in signs]).detach()
    error = float(found.std()) / len(signs) ** 0.5
    assert abs(float(found.mean() - torch.stack(expected).mean())) < 3 * error
    assert error < 0.2 * float(torch.stack(expected).mean())


def test_the_other_equations_are_as_written(weights):
    z, t, probes = random(3, SIZE).double(), 1.0, torch.ones(2, 3, SIZE).double()
    told = [terms(weights, code, t) for code in z]
    rows = torch.stack([hessian.sum(1) for *_, hessian in told])
    u_tt = torch.stack([second for _, second, _ in told]).sum()
    published = (u_tt - weights["c"][1].square() * rows).square().mean()
    torch.testing.assert_close(residual(weights, 1, z, t, "published", probes), published)
    with torch.enable_grad():
        at, times = z.clone().requires_grad_(), torch.full((3,), t, dtype=torch.float64)
        (grad,) = torch.autograd.grad(potential(weights, 1, at, times).sum(), at)
    u_t = torch.stack([first for first, *_ in told])
    hj = (u_t + grad.square().sum(1) / 2).square().mean()
    torch.testing.assert_close(residual(weights, 1, z, t, "hj", probes), hj)


def test_a_strength_counts_steps_and_parts_of_one(gan):
    editor = fitted(gan)
    mean, unit = editor.learned_["mean"], editor.learned_["unit"]
    code = mean + unit * random(3, len(mean))
    moved = editor.moved(code, FIRST, torch.tensor([0.0, 1.5, -1.0]))
    torch.testing.assert_close(moved[0], code[0])

    def slope(z: torch.Tensor, t: float) -> torch.Tensor:
        at = z[None].clone().requires_grad_()
        value = potential(editor.learned_, 0, at, torch.tensor([t]))
        return torch.autograd.grad(value, at)[0][0]

    with torch.enable_grad():
        z = (code[1] - mean) / unit
        z = z + slope(z, 0.0)
        z = z + 0.5 * slope(z, 1.0)
        back = (code[2] - mean) / unit
        back = back - slope(back, 0.0)
    torch.testing.assert_close(moved[1], mean + unit * z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(moved[2], mean + unit * back, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_fit_lowers_the_loss_on_unseen_draws(gan):
    editor = fitted(gan, iterations=60, learning_rate=0.01, w_class=0.0)
    learned = dict(editor.learned_)
    mean, unit = learned.pop("mean"), learned.pop("unit")
    start = editor._potentials(len(mean))
    with torch.enable_grad():
        after, before = (
            sum(
                float(editor._loss(u, editor._reader(), mean, unit, step)) for step in range(60, 70)
            )
            for u in (learned, start)
        )
    assert after < before


def test_the_control_leaves_mean_and_unit(gan):
    editor = fitted(gan)
    before = dict(editor.learned_)
    editor.randomise(Streams(1))
    assert torch.equal(editor.learned_["mean"], before["mean"])
    assert torch.equal(editor.learned_["unit"], before["unit"])
    assert not torch.equal(editor.learned_["out/weight"], before["out/weight"])
    with pytest.raises(BadInput, match="by number, 0 to 1"):
        editor.moved(before["mean"][None], Edit("hat+", "hat"), torch.ones(1))
