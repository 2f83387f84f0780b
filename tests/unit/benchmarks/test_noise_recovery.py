"""Samples of known noise, and what inversion makes of them."""

import torch

from benchmarks.noise_recovery import NoiseRecovery
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.streams import Streams
from latentbench.types import Latent
from methods.inversion.ddim_inversion import DDIMInversion
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM
from metrics.codes.noise_triangle import NoiseTriangle

WORK = Work("samples", (0, 1, 2), 3)


def samples_of(model, editor):
    streams, cache = Streams(0), Cache(None)
    editor.attach(model, streams, cache)
    setting = Bench(
        editor, model, toy.ToyData(model.image_size), streams, cache, torch.device("cpu"), 3
    )
    return NoiseRecovery(n=3).run(WORK, setting, {})


def test_sources_are_the_method_s_samples_of_the_true_noise(latent):
    samples = samples_of(latent, DDIMInversion(steps=3))
    prior = latent.prior(Streams(0), samples.ids)
    prompts = toy.ToyData(latent.image_size).describe("test", WORK.indices).prompts
    images = latent.sample(Latent(prior.parts, prompts=prompts), guidance=1.0, steps=3)
    assert torch.equal(samples.sources, images.clamp(-1, 1))
    assert torch.equal(samples.codes, next(iter(prior.parts.values())).flatten(1))
    assert torch.equal(samples.other_codes, latent.encode(samples.sources).flatten(1))


def test_inversion_finds_the_noise_that_a_draw_does_not():
    """On an exact model whose samples are inside the range of images."""
    model = toy.GaussianModel(steps=50)
    distance = {}
    for drawn in (0, 50):
        samples = samples_of(model, DDIMInversion(forward_steps=drawn))
        distance[drawn] = NoiseTriangle().values(samples)["noise_distance"].mean()
    assert distance[0] < 0.5 < 1.2 < distance[50]


def test_a_code_that_starts_later_has_no_noise_to_compare(latent):
    assert samples_of(latent, EditFriendlyDDPM(skip=2)).noise is None
