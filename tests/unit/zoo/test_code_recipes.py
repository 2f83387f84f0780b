"""Recipes of the models with a semantic code of their own: losses, starts, views."""

import shutil

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from latentbench import weights
from latentbench.conformance import toy
from latentbench.data import faces
from latentbench.models.causal_diffusion import CausalDiffusion
from latentbench.models.info_diffusion import GaussianEncoder, InfoDiffusion
from latentbench.models.soda import SODA, modulations, own_segment
from latentbench.zoo import __main__ as command
from latentbench.zoo.recipes import faces_causal, faces_infodiffusion, faces_soda
from latentbench.zoo.recipes.code_figures import linear_r2
from latentbench.zoo.recipes.code_losses import gaussian_kl, mmd
from latentbench.zoo.recipes.encoded_denoiser import EncodedDenoiser, denoising_error
from latentbench.zoo.recipes.shipped import thinned, widened

CPU = torch.device("cpu")
TINY = 1e-6  # share of the steps: two of each plan


def seeded(k: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(k)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed))


# ---------------------------------------------------------------- losses


def test_mmd_is_the_sum_over_pairs():
    a, b = normal(4, 3), normal(5, 3, seed=1) + 1
    both = torch.cat([a, b])
    apart = [(x - y).square().sum() for i, x in enumerate(both) for y in both[i + 1 :]]
    s2 = torch.stack(apart).median()

    def mean(pairs):
        return torch.stack([torch.exp(-(x - y).square().sum() / (2 * s2)) for x, y in pairs]).mean()

    within = [mean([(x, y) for x in v for y in v if x is not y]) for v in (list(a), list(b))]
    expected = sum(within) - 2 * mean([(x, y) for x in a for y in b])
    torch.testing.assert_close(mmd(a, b), expected)


def test_mmd_is_0_on_average_for_one_law_and_sees_moments_that_differ():
    alike = torch.stack(
        [mmd(normal(32, 8, seed=k), normal(32, 8, seed=k + 999)) for k in range(99)]
    )
    assert abs(float(alike.mean())) < 3 * float(alike.std()) / 99**0.5
    draws = normal(32, 8, seed=5)
    for other in (normal(32, 8) + 1, 2 * normal(32, 8), normal(32, 1).expand(32, 8)):
        assert float(mmd(other, draws)) > 4 * float(alike.std())


def test_mmd_does_not_depend_on_the_scale_of_both_samples():
    a, b = normal(9, 4), normal(9, 4, seed=1) + 1
    torch.testing.assert_close(mmd(100 * a, 100 * b), mmd(a, b))


def test_the_divergence_is_that_of_gaussians():
    mean, log_variance, prior = normal(3, 5), normal(3, 5, seed=1), normal(3, 5, seed=2)
    q = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(q, Normal(prior, torch.ones(()))).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance, prior), expected)


def test_a_stochastic_code_is_drawn_and_a_point_is_not():
    images = toy.ToyData().batch("test", range(4)).images
    for stochastic in (False, True):
        encoder = GaussianEncoder(toy.SIZE, (8, 16), 6, 64, stochastic)
        terms = [
            faces_infodiffusion.code_terms(encoder, images, seeded(k), 0.0, float(stochastic))
            for k in (0, 1)
        ]
        assert torch.equal(terms[0][0], terms[1][0]) is not stochastic
        assert (float(terms[0][1]) > 0) is stochastic  # the KL; both MMDs weigh 0


def test_a_causal_code_is_drawn_to_its_labels(causal):
    encoder, y = causal.semantic_encoder, torch.ones(2, 3)
    images = toy.ToyData().batch("test", range(2)).images
    z, kl = faces_causal.code_terms(encoder, images, y, seeded())
    mean, log_variance = encoder.posterior(images)
    clean = encoder.predict(mean)
    assert 0 < float((z - clean).abs().max()) < 0.5
    apart = 0.5 * (clean - 1).square().sum(1)
    torch.testing.assert_close(kl, (gaussian_kl(mean, log_variance) + apart).mean())


def test_labels_have_mean_0_and_spread_1():
    index = torch.arange(faces_causal.PLAN.fresh, faces_causal.PLAN.fresh + 2000)
    y = faces_causal.labels(faces.sample_factors("generator", index, faces_causal.CORRELATION))
    assert float(y.mean(0).abs().max()) < 0.05 and float((y.std(0) - 1).abs().max()) < 0.05


# ---------------------------------------------------------------- starts


def test_an_evenly_thinned_sum_keeps_its_size():
    layer, x = normal(6, 8), torch.ones(8)
    found = thinned(layer, (3, 4))
    assert found.shape == (3, 4)
    torch.testing.assert_close(found, 2 * layer[::2, ::2])
    torch.testing.assert_close(thinned(torch.ones(6, 8), (3, 4)) @ x[:4], torch.full((3,), 8.0))


def test_a_widened_weight_does_what_it_did():
    layer = normal(3, 4)
    wide = widened(layer, (5, 7))
    found = wide @ torch.cat([torch.ones(4), normal(3)])
    torch.testing.assert_close(found, torch.cat([layer.sum(1), torch.zeros(2)]))


def test_a_thinned_encoder_gives_codes_near_those_of_the_wide_one():
    both = faces_infodiffusion.network().eval()
    images = faces.render(faces.sample_factors("test", torch.arange(32)), 32)
    codes = both.semantic.encode(images)
    assert codes.shape == (32, faces_infodiffusion.CODE)
    assert 0.5 < float(codes.std(0).mean()) < 2
    error = denoising_error(both, images, codes, seeded())
    assert float(error) < 0.6  # of v, whose square is about 1 for a network that knows nothing


# ---------------------------------------------------------------- views and segments


def test_views_show_one_person_twice(monkeypatch):
    seen = []
    blank = torch.zeros(40, 3, faces_soda.SIZE, faces_soda.SIZE)
    monkeypatch.setattr(faces, "render", lambda factors, size: seen.append(factors) or blank)
    faces_soda.views(torch.arange(40))
    columns = [faces.factor_index(name) for name in faces.IDENTITY]
    others = [faces.factor_index(name) for name in faces.ATTRIBUTES]
    assert torch.equal(seen[0][:, columns], seen[1][:, columns])
    assert float((seen[0] - seen[1])[:, others].abs().mean()) > 0.2


def test_whole_segments_are_masked():
    code = faces_soda.masked(torch.ones(500, 12), 3, seeded()).unflatten(1, (4, 3))
    assert torch.equal(code.amin(2), code.amax(2))
    assert abs(float(1 - code.mean()) - faces_soda.MASKED) < 0.03


def test_training_leaves_other_layers_segments_alone(soda):
    parts = toy._told_unet(in_channels=3, class_embed_type="identity", time_embedding_dim=96)
    unet, semantic = parts["unet"], soda.semantic_encoder
    layers = [layer for _, layer in modulations(unet)]
    assert len(layers) * semantic.segment == semantic.code
    for layer in layers:
        layer.weight.data[:, semantic.time :].zero_()
    faces_soda.hold_segments(unet, semantic)
    both = EncodedDenoiser(unet, semantic)
    adam = torch.optim.AdamW(unet.parameters(), 1e-2)
    with torch.enable_grad():
        denoising_error(both, normal(4, 3, 16, 16), normal(4, 16), seeded()).backward()
    adam.step()
    for number, layer in enumerate(layers):
        own = own_segment(layer, number, semantic.time, semantic.segment)
        assert not layer.weight[~own].any()
        assert float(layer.weight[:, semantic.time :].abs().max()) > 0


def test_the_root_gives_noise_the_codes_covariance():
    codes = normal(400, 5) @ normal(5, 5, seed=1)
    root = faces_soda.root_of(codes)
    torch.testing.assert_close(root @ root.T, codes.T.cov(), rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- figures


def test_a_probe_reads_what_is_linear_and_nothing_else():
    codes = normal(600, 4)
    factors = torch.stack([codes @ torch.tensor([1.0, -2.0, 0.0, 3.0]), normal(600, seed=7)], 1)
    linear, noise = linear_r2(codes, factors, 400).tolist()
    assert linear > 0.99 and noise < 0.1


# ---------------------------------------------------------------- whole recipes


@pytest.mark.slow
def test_recipes_make_models_that_start_from_one_another(tmp_path, monkeypatch):
    root = tmp_path / "weights"
    shutil.copytree(weights.folder("faces_diffae"), root / "faces_diffae")
    monkeypatch.setattr(weights, "WEIGHTS_ROOT", root)
    images = faces.render(faces.sample_factors("test", torch.arange(2)), 32)
    made = {
        "faces_infodiffusion": InfoDiffusion, "faces_causal": CausalDiffusion, "faces_soda": SODA,
    }  # fmt: skip
    for name, cls in made.items():
        folder = command.train(name, 2, CPU, tmp_path / "checkpoints")
        (run,) = weights.card(name)["training"].values()
        start = weights.card(run["start"])["sha256"]
        assert run["start_unet_sha256"] == start["unet/diffusion_pytorch_model.safetensors"]
        assert run["steps"] == 2 and run["split"] == "generator"
        model = cls(path=name, steps=2)
        code = model.encode_semantic(images)
        assert code.shape == (2, model.code_size) and bool(code.isfinite().all())
        assert sum(f.stat().st_size for f in folder.rglob("*.safetensors")) < 2.7 * 2**20


@pytest.mark.slow
def test_the_divergence_is_a_choice(tmp_path):
    told = faces_infodiffusion.make(tmp_path / "made", CPU, tmp_path, TINY, w_mmd=0.0, w_kl=0.001)
    (run,) = told.values()
    assert (run["w_mmd"], run["w_kl"]) == (0.0, 0.001)
    assert InfoDiffusion(path=str(tmp_path / "made"), steps=2).code_size == 64
