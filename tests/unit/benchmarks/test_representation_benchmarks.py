"""Probing and robustness on the toy models."""

from dataclasses import replace

import pytest
import torch

from benchmarks.interpolation import Interpolation
from benchmarks.latent_similarity import LatentSimilarity
from benchmarks.probing import Probing
from benchmarks.robustness import Robustness
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.inversion import ddim_invert
from latentbench.streams import Streams
from methods.generation.plain import PlainSampling
from methods.interpolation.slerp import SphericalInterpolation
from methods.representation.features import Features


def bench(model, editor) -> Bench:
    streams, cache = Streams(0), Cache(None)
    editor.attach(model, streams, cache)
    return Bench(editor, model, toy.ToyData(), streams, cache, torch.device("cpu"), 3)


def with_others(setting: Bench, **parts) -> Bench:
    return replace(setting, parts=parts)


def test_probing_gives_each_image_its_code(pixel):
    setting = bench(pixel, Features())
    samples = Probing(n=3).run(Work("images", (0, 1, 2), 3), setting, {})
    expected = setting.editor.represent(setting.dataset.batch("test", [0, 1, 2]))
    assert torch.equal(samples.codes, expected)
    assert samples.factors.shape == (3, 3)


def test_robustness_pairs_shifted_and_unshifted_samples(latent):
    setting = bench(latent, PlainSampling(guidance=1.0))
    benchmark = Robustness(n=3, shifts=["mean 0.5", "opposite 1"])
    assert benchmark.groups(setting.dataset) == ("mean 0.5", "opposite 1")
    before = latent.evaluations.forward
    one, two = (
        benchmark.run(Work(case, (0, 1, 2), 3), setting, {}) for case in ("mean 0.5", "opposite 1")
    )
    assert latent.evaluations.forward - before == 3 * 3 * 5  # unshifted samples are made once
    assert torch.equal(one.sources, two.sources)
    plain = setting.editor.generate(one.ids, setting.dataset.batch("test", [0, 1, 2]).prompts)
    assert torch.equal(one.sources, plain.clamp(-1, 1))
    z = Streams(0).normal("prior", one.ids, latent.latent_shape)
    assert torch.equal(one.noise, z + 0.5) and torch.equal(two.noise, -z)
    torch.testing.assert_close(two.strengths, torch.full((3, 1), 2.0))
    assert one.wanted.shape == (3, 1, 3)


def test_a_model_without_prompts_has_nothing_wanted(pixel):
    setting = bench(pixel, PlainSampling())
    samples = Robustness(n=3).run(Work("mean 0.5", (0, 1, 2), 3), setting, {})
    assert samples.wanted is None


@pytest.mark.parametrize(
    ("case", "what"),
    [
        ("men 0.1", "did you mean mean"),
        ("mean", "a case is"),
        ("mean 0.1 0.2", "a case is"),
        ("mean nan", "strength of mean must be a number from -1000 to 1000; got nan"),
        ("stretch inf", "got inf"),
        ("convex 1.5", "strength of convex must be a number from 0 to 1; got 1.5"),
        ("sparse 1", "of 0 or more and below 1; got 1"),
        ("blur 0", "above 0 and at most 100; got 0"),
        ("clip -1", "above 0 and at most 1000; got -1"),
        ("roll 1.5", "strength of roll must be a whole number from -1024 to 1024; got 1.5"),
    ],
)
def test_a_case_that_is_none_is_refused(case, what):
    with pytest.raises(BadInput, match=what):
        Robustness(shifts=[case])


def test_one_shift_in_two_spellings_is_refused():
    with pytest.raises(BadInput, match=r"'mean 0\.10' is 'mean 0\.1' once more"):
        Robustness(shifts=["mean 0.1", "blur 1", "mean 0.10"])


# ---------------------------------------------------------------- two spaces


def test_another_space_of_the_same_model(latent):
    setting = bench(latent, Features())
    setting = with_others(setting, other_method=option("method", "features_vae").build())
    benchmark = LatentSimilarity(n=3, other_method="features_vae")
    samples = benchmark.run(Work("images", (0, 1, 2), 3), setting, {})
    batch = setting.dataset.batch("test", [0, 1, 2])
    assert torch.equal(samples.codes, setting.editor.represent(batch))
    assert torch.equal(samples.other_codes, latent.encode(batch.images).flatten(1))


def test_the_same_space_under_other_noise(pixel):
    setting = with_others(bench(pixel, Features()), other_method=Features())
    samples = LatentSimilarity(n=3).run(Work("images", (0, 1, 2), 3), setting, {})
    assert samples.codes.shape == samples.other_codes.shape
    assert not torch.equal(samples.codes, samples.other_codes)


def misfit(model, **settings):
    benchmark = LatentSimilarity(**settings)
    parts = Parts(Features, {}, type(model), toy.ToyData(), benchmark, settings)
    return parts.misfit()


def test_a_space_that_the_model_lacks_is_refused_before_any_load(pixel):
    assert misfit(pixel, other_method="features") is None
    assert "lacks vae" in str(misfit(pixel, other_method="features_vae"))
    assert "the verb represent" in str(misfit(pixel, other_method="plain"))
    with pytest.raises(BadInput, match="unknown method 'feature'"):
        misfit(pixel, other_method="feature")


def test_another_model_gets_the_images_at_its_size(pixel):
    other = option("model", "faces_ddpm").build(device="cpu")
    setting = with_others(bench(pixel, Features()), other_method=Features(), other_model=other)
    benchmark = LatentSimilarity(other_model="faces_ddpm")
    samples = benchmark.run(Work("images", (0, 1), 2), setting, {})
    assert samples.codes.shape == (2, 32) and samples.other_codes.shape == (2, 96)


# ---------------------------------------------------------------- paths between real images


@pytest.mark.parametrize("name", ["pixel", "vae", "diffae"])
def test_paths_between_real_images_end_at_their_reconstructions(name, request):
    model = request.getfixturevalue(name)
    setting = bench(model, SphericalInterpolation())
    samples = Interpolation(n=2, frames=3, kind="image").run(Work("image", (0, 1), 2), setting, {})
    first, second = (setting.dataset.batch("test", [j, 2 + j]) for j in (0, 1))
    assert torch.equal(samples.ends, torch.stack([first.images, second.images], 1))
    assert samples.outputs.shape == (2, 3, 3, 16, 16) and samples.wanted.shape == (2, 3, 3)
    if name == "vae":
        expected = model.decode(model.encode(second.images))
    elif name == "pixel":
        inverted = ddim_invert(model, second, Cache(None))
        expected = bench(model, PlainSampling()).editor.generate(second.ids, None, inverted)
    else:
        return
    torch.testing.assert_close(samples.outputs[:, -1], expected.clamp(-1, 1), rtol=1e-3, atol=1e-3)
