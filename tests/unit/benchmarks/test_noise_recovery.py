"""Samples of known noise, and what inversion makes of them."""

import torch

from benchmarks.noise_recovery import NoiseRecovery
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.conformance import toy
from latentbench.streams import Streams
from latentbench.types import Latent
from methods.inversion.autoencode import Autoencode
from methods.inversion.ddim_inversion import DDIMInversion
from methods.inversion.edict import EDICT
from methods.inversion.edit_friendly_ddpm import EditFriendlyDDPM
from methods.inversion.oracle_inversion import OracleInversion
from metrics.codes.level_error import LevelError
from metrics.codes.noise_triangle import NoiseTriangle

WORK = Work("samples", (0, 1, 2), 3)


def samples_of(model, editor):
    streams, cache = Streams(0), Cache(None)
    editor.attach(model, streams, cache)
    checked, data = CheckedEditor(editor), toy.ToyData(model.image_size)
    setting = Bench(checked, model, data, streams, cache, torch.device("cpu"), 3)
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
    samples = samples_of(latent, EditFriendlyDDPM(skip=2))
    assert samples.noise is None and samples.found_trajectory is None


def test_a_pair_of_noises_is_not_the_sample_s(latent):
    samples = samples_of(latent, EDICT(steps=3, depth=1.0))
    assert samples.noise is None and torch.isfinite(samples.outputs).all()


def test_both_ways_lead_from_noise_to_the_clean_latent(pixel):
    """At every eighth of the way; the sampler's ends in the samples before they are clipped."""
    samples = samples_of(pixel, DDIMInversion(steps=20))
    theirs, own = samples.trajectory, samples.found_trajectory
    assert theirs.shape == own.shape == (3, 9, *pixel.latent_shape)
    assert torch.equal(theirs[:, 0].flatten(1), samples.codes)
    assert torch.equal(theirs[:, -1].clamp(-1, 1), samples.sources)
    assert torch.equal(own[:, 0], samples.noise)
    assert torch.equal(own[:, -1].flatten(1), samples.other_codes)


def test_most_of_the_error_is_there_after_a_quarter_of_the_way():
    model = toy.GaussianModel(steps=20)
    errors = LevelError().values(samples_of(model, DDIMInversion()))
    size = [float(errors[f"level_error_{share}"].mean()) for share in (25, 50, 75, 100)]
    assert size == sorted(size) and size[0] > size[3] / 2


def test_the_benchmark_s_trajectory_is_on_the_method_s_levels():
    model = toy.GaussianModel(steps=50)
    samples = samples_of(model, OracleInversion(steps=7, oracle_steps=None))
    assert torch.equal(samples.noise.flatten(1), samples.codes)


def test_a_model_without_a_sampler_has_no_way(vae):
    samples = samples_of(vae, Autoencode())
    assert samples.trajectory is None and samples.found_trajectory is None
