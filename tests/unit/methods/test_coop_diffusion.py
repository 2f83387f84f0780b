"""Coop-Diffusion: two denoisers, one image."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import generate
from latentbench.streams import Streams
from latentbench.types import Concept, Space
from methods.generation.composed import ComposedDiffusion, composed_terms
from methods.generation.coop_diffusion import CoopDiffusion, carried, matched_grid, spread

IDS = ("a", "b")
HAT, SMILE = Concept(("hat",) * 2), Concept(("smile",) * 2)


def attached(model, partner, **settings) -> CoopDiffusion:
    editor = CoopDiffusion(**settings)
    editor.attach(model, Streams(0), Cache(None), {"partner": partner})
    return editor


def alone(model, concepts, **settings):
    editor = ComposedDiffusion(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor.compose(IDS, concepts)


class Flow(toy.GaussianModel):
    """The same images by a flow's levels; every x that it is asked about is kept."""

    def __init__(self):
        super().__init__("flow")
        self.seen = []

    def grid(self, steps=None):
        n = steps or self.steps
        sigma = torch.linspace(1, 0, n + 1, dtype=torch.float64)
        return toy.Grid(1000 * sigma[:-1], 1 - sigma, sigma)

    def forward(self, x, timesteps, condition, taps=None):
        self.seen.append(x)
        return x - condition.tensors["mean"]


def test_without_a_share_it_is_the_model_alone_bit_by_bit(latent, pixel):
    found = attached(latent, pixel, share=0.0, steps=3).compose(IDS, [HAT, SMILE])
    assert torch.equal(found, alone(latent, [HAT], steps=3))


def test_a_model_with_itself_samples_as_it_does_alone():
    """Images are the latents, and nothing is clipped: every share gives the plain sample."""
    model = toy.GaussianModel(spread=0.05, steps=20)
    for share in (0.3, 1.0):
        found = attached(model, model, share=share, until=1.0, noise="shared").compose(IDS, [HAT])
        torch.testing.assert_close(found, alone(model, [HAT]), rtol=0, atol=0.05)


def test_both_concepts_show_and_the_share_weighs_them():
    """Means of the two conditions, mixed; each model knows its own word."""
    model = toy.GaussianModel(spread=0.05, steps=20)
    moved = []
    for share in (0.0, 0.5, 1.0):
        found = attached(model, model, share=share, until=1.0).compose(IDS, [HAT, SMILE])
        ways = [model.mean(word) for word in ("hat", "smile")]
        moved.append([float((found * w).sum() / (2 * w.square().sum())) for w in ways])
    assert moved[0] == pytest.approx([1, 0], abs=0.15)
    assert moved[1] == pytest.approx([0.5, 0.5], abs=0.15)
    assert moved[2] == pytest.approx([0, 1], abs=0.15)


def test_levels_are_matched_by_signal_to_noise(gaussian):
    goal = gaussian.grid(10)
    found = matched_grid(Flow(), goal)
    assert found.n == 10 and float(found.sigma[-1]) == 0
    ratio = [(g.alpha[1:-1] / g.sigma[1:-1]).log() for g in (found, goal)]
    torch.testing.assert_close(ratio[0], ratio[1], rtol=0.02, atol=0.05)


@pytest.mark.parametrize("mode", ["spaces", "resolutions"])
@pytest.mark.parametrize("noise", ["own", "shared"])
def test_a_flow_starts_with_the_noise_of_the_level_that_it_is_matched_at(gaussian, mode, noise):
    """At two steps the first is at t = 501, where a flow's level holds less noise than x_T."""
    flow = Flow()
    ids = tuple(str(k) for k in range(20))
    attached(gaussian, flow, mode=mode, noise=noise, steps=2, guidance=1.0).compose(
        ids, [Concept(("hat",) * 20)]
    )
    first = matched_grid(flow, gaussian.grid(2))
    expected = float(torch.hypot(first.alpha[0], first.sigma[0]))
    assert expected < 0.85 and spread(first) == pytest.approx(expected)
    assert float(flow.seen[0].std()) == pytest.approx(expected, rel=0.05)


def test_levels_that_preserve_variance_leave_the_noise_as_it_is(gaussian, latent, pixel):
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    for model in (gaussian, latent, pixel):
        for steps in (2, 3, 5):
            assert torch.equal(x * spread(matched_grid(model, gaussian.grid(steps))), x)


def test_a_partner_that_makes_all_steps_leaves_no_noise_of_the_handover(latent):
    """The last level of this model holds noise, which no step would take away."""
    settings = {"mode": "resolutions", "handover": 1.0, "noise": "shared", "steps": 3}
    found = attached(latent, latent, **settings).compose(IDS, [HAT])
    grid = matched_grid(latent, latent.grid(3))
    assert float(grid.sigma[-1]) > 0
    x = latent.prior(Streams(0), IDS).parts[Space.NOISE]
    made = generate(latent, x, composed_terms(latent, [HAT], 2, None), grid=grid)
    assert torch.equal(found, latent.decode(carried(made, latent, latent)))


@pytest.mark.parametrize("mode", ["spaces", "resolutions"])
def test_a_pixel_model_without_prompts_takes_part(latent, pixel, mode):
    """Each in its own space, and the model in its own resolution."""
    found = attached(latent, pixel, mode=mode, steps=4).compose(IDS, [HAT])
    assert found.shape == (2, 3, latent.image_size, latent.image_size)
    assert float((found - alone(latent, [HAT], steps=4)).abs().max()) > 1e-3


def test_images_are_carried_in_the_other_s_size(latent):
    small = toy.GaussianModel()
    x0 = small.draw(("hat",))
    assert carried(x0, small, latent).shape == (1, *latent.latent_shape)


def test_the_partner_makes_the_steps_before_the_handover():
    """All of them: the partner's image as it is carried; each model is called for its own steps."""
    model, partner = toy.GaussianModel(spread=0.05, steps=10), toy.GaussianModel(spread=0.05)
    editor = attached(model, partner, mode="resolutions", handover=0.3, steps=10, guidance=1.0)
    editor.compose(IDS, [HAT, SMILE])
    assert partner.evaluations.forward == 2 * 4 and model.evaluations.forward == 2 * 7


def test_one_noise_needs_one_shape(latent, pixel):
    with pytest.raises(BadInput, match="latents of one shape"):
        attached(latent, pixel, noise="shared", steps=2).compose(IDS, [HAT])
    with pytest.raises(BadInput, match="has a region"):
        attached(latent, pixel).compose(IDS, [Concept(("a",) * 2, 1.0, torch.ones(2, 16, 16))])
    with pytest.raises(BadInput, match="less than one of 4"):
        CoopDiffusion(mode="resolutions", handover=0.1).check(toy.ToyData(), 4, [])
    vae = option("model", "faces_vae")
    assert "is no denoiser" in str(CoopDiffusion.misfit(type(latent), {"partner": vae}))
