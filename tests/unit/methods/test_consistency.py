"""Multistep consistency sampling on an exact denoiser, whose one-step answer is known."""

import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.parameterization import variance_preserving_grid
from latentbench.streams import Streams
from latentbench.types import Space
from methods.generation.consistency import ConsistencySampling


class Projected(toy.GaussianModel):
    """The exact denoiser as a consistency model whose f is the posterior mean."""

    spaces = frozenset({Space.CONSISTENCY})

    def boundary(self, timestep):
        return 0.0, 1.0

    def grid(self, steps=None):
        timesteps = [999 - k * 1000 // steps for k in range(steps)]
        return variance_preserving_grid(self.schedule.alphas_cumprod, timesteps, 1.0)


def method(steps):
    found = ConsistencySampling(steps=steps)
    found.attach(Projected(), Streams(0), Cache(None))
    return found


def test_one_step_is_the_prediction_from_the_images_noise():
    editor = method(1)
    found = editor.generate(("a", "b"), ("hat", "smile"))
    model, grid = editor.model, editor.model.grid(1)
    x = Streams(0).normal("prior", ("a", "b"), model.latent_shape)
    out = model.forward(x, grid.timesteps.repeat(2), model.condition(("hat", "smile"), 2))
    alpha, sigma = grid.levels(0, x)
    torch.testing.assert_close(found, (x - sigma * out) / alpha, rtol=1e-3, atol=1e-3)


def test_more_steps_bring_back_the_variance_that_one_step_lacks():
    ids = tuple(f"i{k}" for k in range(64))
    spread = [float(method(n).generate(ids, ("",) * 64).std(0).mean()) for n in (1, 4, 32)]
    assert spread[0] < spread[1] < spread[2]


def test_a_given_noise_takes_the_place_of_the_images():
    editor = method(2)
    z = torch.zeros(2, *editor.model.latent_shape)
    a, b = (editor.generate(ids, ("hat", "hat"), z) for ids in (("a", "b"), ("a", "c")))
    assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])
