"""Composed diffusion with annealed MCMC."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.parameterization import Grid
from latentbench.sampling.loop import Step
from latentbench.streams import Streams
from latentbench.types import Concept
from methods.generation.composed import ComposedDiffusion
from methods.generation.composed_mcmc import AnnealedMCMC, ComposedMCMC, Draws

IDS, CONCEPTS = ("a", "b"), [Concept(("a face with hat", "smile")), Concept(("glasses",) * 2, -0.5)]
SIGMA, MEAN, WIDTH = 0.6, 1.5, 0.5  # of a level, and of the Gaussian density that it has
GRID = Grid(torch.tensor([9, 5]), torch.tensor([0.1, 0.8, 1.0]), torch.tensor([0.99, SIGMA, 0.0]))


def step() -> Step:
    def predict(x, level):  # eps = -sigma x the score of N(MEAN, WIDTH^2)
        return x, SIGMA * (x - MEAN) / WIDTH**2

    return Step(0, 0, 1, 2, 9, ("condition",), GRID, predict)


def ran(kernel: str, c: float, k: int = 300, images: int = 300):
    torch.manual_seed(0)
    draws = Draws(torch.randn(k, images, 1, 2, 2), torch.rand(k, images).log())
    mcmc = AnnealedMCMC(kernel, lambda level: draws, c=c, leapfrog=3, damping=0.5, least=0.1)
    return mcmc.after_step(step(), torch.zeros(images, 1, 2, 2)), mcmc


@pytest.mark.parametrize(
    ("kernel", "c"), [("ula", 0.02), ("mala", 0.3), ("uhmc", 0.05), ("hmc", 0.2)]
)
def test_kernels_leave_the_density_of_the_level_invariant(kernel, c):
    x, mcmc = ran(kernel, c)
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.06)
    assert float(x.std()) == pytest.approx(WIDTH, abs=0.05)
    share = mcmc.acceptance[1]
    assert share.shape == (300,)
    assert bool((share == 1).all()) == (kernel in ("ula", "uhmc"))


def test_acceptance_protects_where_steps_are_too_long():
    """h = 1.5 x the local variance and more: the unadjusted chain leaves the density."""
    c = 2.2 * WIDTH**2 / SIGMA**2
    wild, kept = (ran(kernel, c)[0] for kernel in ("ula", "mala"))
    assert float(wild.std()) > 10 * WIDTH
    assert float(kept.std()) < 2 * WIDTH
    assert 0 < float(ran("mala", c)[1].acceptance[1].mean()) < 0.6
    assert float(ran("mala", 0.001)[1].acceptance[1].mean()) > 0.95  # inert at small steps


def attached(model, cls=ComposedMCMC, **settings):
    editor = cls(**{"steps": 2} | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def test_no_steps_are_composed_diffusion(latent):
    expected = attached(latent, ComposedDiffusion, steps=4).compose(IDS, CONCEPTS)
    for settings in ({"k": 0}, {"least": 2.0}):
        assert torch.equal(attached(latent, steps=4, **settings).compose(IDS, CONCEPTS), expected)
    assert float((attached(latent, steps=4).compose(IDS, CONCEPTS) - expected).abs().max()) > 1e-2


@pytest.mark.parametrize(("kernel", "each"), [("ula", 2), ("mala", 3), ("uhmc", 7), ("hmc", 7)])
def test_evaluations(latent, kernel, each):
    """Langevin 1 a step, with acceptance 1 more a level; Hamiltonian k L + 1 a level."""
    n, rows, k = 2, 2 * 3, 2
    before = latent.evaluations.forward
    attached(latent, kernel=kernel, k=k, least=0.0, steps=n).compose(IDS, CONCEPTS)
    assert latent.evaluations.forward - before == rows * (n + (n - 1) * each)
