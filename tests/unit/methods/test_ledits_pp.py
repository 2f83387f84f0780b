"""LEDITS++."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import denoise, generate, plain, predict
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.inversion.ledits_pp import LEDITSPlusPlus, MaskedGuidance, SecondOrder

SOURCE, TARGET = "a face with hat", "a face with smile"


def attached(model, **settings) -> LEDITSPlusPlus:
    editor = LEDITSPlusPlus(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


@pytest.mark.parametrize("model", ["latent", "pixel"])
@pytest.mark.parametrize("steps", [3, 8])
def test_reconstruction_is_exact_at_every_number_of_steps(model, steps, request):
    """Also where the clean end has no noise (the pixel model's)."""
    model, batch = request.getfixturevalue(model), toy.ToyData().batch("test", range(2))
    editor = attached(model, steps=steps, skip=1)
    code = editor.invert(batch)
    torch.testing.assert_close(
        editor.decode(code), model.decode(model.encode(batch.images)), rtol=0, atol=1e-4
    )


def test_the_sampler_is_sde_dpm_solver_2m(gaussian):
    """Against diffusers' scheduler, up to the step to the clean end."""
    n, grid = 10, gaussian.grid(10)
    config = {**gaussian.schedule.config, "timestep_spacing": "leading"}
    reference = DPMSolverMultistepScheduler.from_config(
        config, algorithm_type="sde-dpmsolver++", solver_order=2, lower_order_final=False
    )
    reference.set_timesteps(timesteps=grid.timesteps.tolist())
    noise = Streams(0).normal("z", [str(i) for i in range(n)], (2, *gaussian.latent_shape))
    terms = plain(gaussian.condition(("hat", "smile"), 2))
    x = start = Streams(0).normal("x", ["0", "1"], gaussian.latent_shape)
    for i in range(n - 1):
        _, eps = predict(gaussian, x, grid, i, terms)
        t = grid.timesteps[i]
        x = reference.step(eps, t, x, variance_noise=noise[i]).prev_sample
    found = generate(
        gaussian, start, terms, grid=grid, stop=n - 1, eta=1.0, noise=lambda i: noise[i],
        interventions=[SecondOrder()],
    )  # fmt: skip
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
    first = generate(
        gaussian, start, terms, grid=grid, stop=n - 1, eta=1.0, noise=lambda i: noise[i]
    )
    assert float((first - x).abs().max()) > 1e-2


def test_the_concept_acts_where_it_changes_most(gaussian):
    grid, level = gaussian.grid(), 20
    x = Streams(0).normal("x", ["0", "1", "2"], gaussian.latent_shape)
    null, concept = gaussian.condition(None, 3), gaussian.condition((TARGET,) * 3, 3)
    scale = torch.tensor([0.0, 1.0, 3.0])
    guidance = MaskedGuidance(gaussian, concept, scale, 0.75)
    _, away = predict(gaussian, x, grid, level, plain(null))
    _, told = predict(gaussian, x, grid, level, plain(concept))
    _, eps = denoise(gaussian, x, plain(null), grid=grid, level=level, interventions=[guidance])
    size = (told - away).abs().sum(1)
    for k, s in enumerate(scale):
        inside = (size[k] >= size[k].quantile(0.75)) * s
        torch.testing.assert_close(eps[k], away[k] + inside * (told - away)[k])
    assert float((eps[2] != away[2]).float().mean()) < 0.4


def test_it_costs_one_evaluation_for_the_concept(latent):
    batch = toy.ToyData().batch("test", range(2))
    editor = attached(latent, skip=1)
    before = latent.evaluations.forward
    editor.edit(batch, Edit("x", target_prompts=("smile", "hat")), torch.tensor([0.0, 3.0]))
    assert latent.evaluations.forward - before == 2 * 4 * (1 + 2 + 1)  # maps, null twice, concept


def test_a_concept_in_words_is_the_edits_own(latent):
    batch = toy.ToyData().batch("test", range(2))
    targets = ("a face with hat",) * 2
    words = Edit("x", target_prompts=targets, words=("bareheaded", "a face with hat"))
    strength = torch.tensor([3.0])
    by_words = attached(latent, concept="words").edit(batch, words, strength)
    torch.testing.assert_close(by_words, attached(latent).edit(batch, words, strength))
    with pytest.raises(BadInput, match="'x' has no words"):
        attached(latent, concept="words").edit(batch, Edit("x", target_prompts=targets), strength)


def test_maps_of_neighbouring_steps_are_anticorrelated(gaussian):
    batch = Batch(tuple("0123"), gaussian.draw((SOURCE,) * 4), (SOURCE,) * 4)
    maps = attached(gaussian, steps=20).invert(batch).parts[Space.NOISE_MAPS][:, :-1].flatten(2)
    neighbours = torch.cosine_similarity(maps[:, 1:], maps[:, :-1], dim=2).mean()
    assert float(neighbours) < -0.3 and float(maps.std()) > 1
