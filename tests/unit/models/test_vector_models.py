"""Models with one vector per image: VAE, GAN, diffusion autoencoder, refined VAE."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.interpolation import Interpolation
from benchmarks.reconstruction import Reconstruction
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible, MissingWeights
from latentbench.models.diffusion_autoencoder import DiffusionAutoencoder
from latentbench.models.gan import StyleGAN
from latentbench.models.info_diffusion import InfoDiffusion
from latentbench.models.soda import SODA, SegmentedEncoder, modulations
from latentbench.models.vae import DiffuseVAE, VariationalAutoencoder
from latentbench.sampling.loop import Intervention, Recorder, denoise, generate, guided, invert
from latentbench.streams import Streams
from latentbench.types import Space
from methods.interpolation.lerp import LinearInterpolation
from methods.inversion.ddim_inversion import DDIMInversion

PUSHED = ("vae", "gan")
TOLD = ("diffae", "infodiffusion", "causal", "soda", "diffusevae")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return toy.ToyData().batch("test", range(3)).images


@pytest.fixture
def model(request):
    return request.getfixturevalue(request.param)


def on(*names: str):
    return pytest.mark.parametrize("model", names, indirect=True)


# ---------------------------------------------------------------- all


@on(*PUSHED, *TOLD)
def test_codes_and_images_have_their_shapes(model, images):
    latent = model.encode(images)
    assert latent.dtype == torch.float32 and model.image_size == toy.SIZE
    assert model.decode(latent).shape == images.shape
    parts = model.prior(Streams(0), ("a", "b")).parts
    assert parts[Space.NOISE].shape == (2, *model.latent_shape)
    assert parts.keys() <= model.spaces


@on(*PUSHED, *TOLD)
def test_a_prior_draw_belongs_to_its_id(model):
    one, two = (model.prior(Streams(0), ids).parts for ids in (("a", "b"), ("b", "a")))
    for space in one:
        assert torch.equal(one[space], two[space].flip(0))
    other = model.prior(Streams(1), ("a", "b")).parts
    assert all(float((one[s] - other[s]).abs().max()) > 0.1 for s in one)


@on(*PUSHED, *TOLD)
def test_images_of_another_size_are_refused(model, images, unchecked):
    encode = model.encode_semantic if Space.SEMANTIC in model.spaces else model.encode
    with pytest.raises(BadInput, match="resize them"):
        encode(images[..., :8])


@on(*PUSHED, *TOLD)
def test_networks_are_frozen_and_in_evaluation_mode(model):
    for network in model.networks():
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def fingerprints(zoo, cls, name, part, **settings):
    models = [cls(path=str(zoo / name), **settings) for _ in range(3)]
    next(getattr(models[2], part).parameters()).data.add_(1e-3)
    return [m.fingerprint() for m in models]


def test_a_fingerprint_is_of_all_weights(zoo):
    settings = {"steps": 5, "vae": str(zoo / "vae")}
    cases = [
        (VariationalAutoencoder, "vae", "vae", {}),
        (StyleGAN, "gan", "encoder", {}),
        (DiffusionAutoencoder, "diffae", "semantic_encoder", {}),
        (DiffusionAutoencoder, "diffae", "code_prior", {}),
        (DiffuseVAE, "diffusevae", "network", settings),
    ]
    for cls, name, part, extra in cases:
        a, b, changed = fingerprints(zoo, cls, name, part, **extra)
        assert a == b != changed, part
    refined = [DiffuseVAE(path=str(zoo / "diffusevae"), **settings) for _ in range(2)]
    next(refined[1].vae.vae.parameters()).data.add_(1e-3)
    assert refined[0].fingerprint() != refined[1].fingerprint()


def test_prior_steps_count_in_the_fingerprint(zoo):
    a, b = (DiffusionAutoencoder(path=str(zoo / "diffae"), prior_steps=k) for k in (5, 6))
    assert a.fingerprint() != b.fingerprint()


def test_a_missing_component_is_named(zoo, tmp_path):
    shutil.copytree(zoo / "gan" / "mapping", tmp_path / "mapping")
    with pytest.raises(MissingWeights, match="StyleSynthesis"):
        StyleGAN(path=str(tmp_path))


def test_half_precision_on_disk_is_read_as_asked(zoo, tmp_path, vae, images):
    half = VariationalAutoencoder(path=str(zoo / "vae"), dtype="bfloat16")
    assert half.encode(images).dtype == torch.float32
    vae.vae.half().save_pretrained(tmp_path / "vae")
    vae.vae.float()
    (file,) = (tmp_path / "vae").glob("*.safetensors")
    assert all(t.dtype == torch.float16 for t in load_file(file).values())
    full = VariationalAutoencoder(path=str(tmp_path))
    torch.testing.assert_close(full.encode(images), vae.encode(images), rtol=1e-2, atol=1e-2)


# ---------------------------------------------------------------- without a sampler


@on(*PUSHED)
def test_a_row_does_not_depend_on_its_neighbours(model, images):
    for function in (model.encode, lambda x: model.decode(model.encode(x))):
        together = function(images)
        assert torch.equal(function(images[[2, 0, 1]]), together[[2, 0, 1]])
        alone = function(images[1:2].expand(3, -1, -1, -1))
        assert torch.equal(alone[0], together[1])


@on(*PUSHED)
def test_decoding_and_encoding_are_differentiable(model, images):
    with torch.enable_grad():
        code = model.encode(images).detach().requires_grad_()
        model.decode(code).square().sum().backward()
        x = images.clone().requires_grad_()
        model.encode(x).square().sum().backward()
    for leaf in (code, x):
        assert float(leaf.grad.flatten(1).abs().amax(1).min()) > 0


@on(*PUSHED)
def test_the_truth_of_a_reconstruction_is_the_image(model, images):
    assert torch.equal(model.reconstruction_truth(images), images)


def test_a_style_is_the_same_for_a_longer_z(gan):
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gan.push(z), gan.push(3 * z))
    assert float((gan.push(z) - gan.push(-z)).abs().max()) > 1e-3


def test_demodulation_keeps_the_scale_of_maps(gan):
    """Equation 3: a style ten times as large gives the same maps."""
    layer = gan.synthesis.resolutions[1].layers[1]
    x, w = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    plain = layer(x, w)
    layer.style.weight.data.mul_(10)
    layer.style.bias.data.mul_(10)
    torch.testing.assert_close(layer(x, w), plain, rtol=1e-3, atol=1e-4)
    layer.style.weight.data.div_(10)
    layer.style.bias.data.div_(10)


def test_modulating_maps_is_modulating_weights(gan):
    """Equations 1 and 3, as written there: one kernel per image."""
    layer = gan.synthesis.resolutions[1].layers[0]
    x, w = torch.randn(2, layer.convolution.in_channels, 4, 4), torch.randn(2, 16)
    found = layer(x, w)
    for k in range(2):
        kernel = layer.convolution.weight * layer.style(w)[k][None, :, None, None]
        kernel = kernel * (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        y = torch.nn.functional.conv2d(x[k : k + 1], kernel, padding=1) + layer.bias[:, None, None]
        expected = torch.nn.functional.leaky_relu(y, 0.2) * 2**0.5
        torch.testing.assert_close(found[k : k + 1], expected, rtol=1e-3, atol=1e-4)


def test_methods_of_the_loop_are_refused_with_a_reason():
    reason = Parts(DDIMInversion, {}, StyleGAN, toy.ToyData(), Reconstruction()).misfit()
    assert reason == "DDIMInversion works on a DiffusionModel, which StyleGAN is not"
    paths, style = Interpolation(), {"space": "style"}
    assert Parts(LinearInterpolation, style, StyleGAN, toy.ToyData(), paths).misfit() is None
    wrong = Parts(LinearInterpolation, style, DiffuseVAE, toy.ToyData(), paths).misfit()
    assert wrong is not None and "requires the space style" in wrong


# ---------------------------------------------------------------- told a code


@on(*TOLD)
def test_the_code_reaches_the_denoiser_and_its_gradient_comes_back(model, images):
    x = Streams(0).normal("x", ("a", "b", "c"), model.latent_shape)
    grid = model.grid()

    def x0(x, code):
        terms = guided(model.semantic_condition(code), model.condition(None, 3), 1.0)
        return denoise(model, x, terms, grid=grid, level=2)[0]

    code = model.encode_semantic(images)
    told, untold = x0(x, code), x0(x, torch.zeros_like(code))
    assert float((told - untold).abs().flatten(1).amax(1).min()) > 1e-3
    with torch.enable_grad():
        leaves = [v.clone().requires_grad_() for v in (x, code)]
        x0(*leaves).square().sum().backward()
    assert all(float(v.grad.flatten(1).abs().amax(1).min()) > 0 for v in leaves)


@on(*TOLD)
def test_the_bottleneck_of_x0_has_a_gradient(model):
    x = Streams(0).normal("x", ("a", "b"), model.latent_shape)
    recorder = Recorder(bottleneck=True)
    terms = guided(model.condition(None, 2), model.condition(None, 2), 1.0)
    denoise(model, x, terms, grid=model.grid(), level=1, interventions=[recorder])

    class Shift(Intervention):
        def bottleneck(self, step, h):
            return h + delta

    with torch.enable_grad():
        delta = torch.zeros_like(recorder.h[1]).requires_grad_()
        x0, _ = denoise(model, x, terms, grid=model.grid(), level=1, interventions=[Shift()])
        x0.square().sum().backward()
    assert float(delta.grad.abs().max()) > 0


@on(*TOLD)
def test_rows_do_not_mix(model, images):
    code = model.encode_semantic(images)
    x = Streams(0).normal("x", ("a", "b", "c"), model.latent_shape)

    def made(rows):
        condition = model.semantic_condition(code[rows])
        return generate(model, x[rows], guided(condition, condition, 1.0))

    together = made([0, 1, 2])
    assert torch.equal(made([2, 0, 1]), together[[2, 0, 1]])
    assert torch.equal(made([1, 1, 1])[0], together[1])


@on(*TOLD)
def test_inversion_under_the_code_comes_back(model, images):
    condition = model.semantic_condition(model.encode_semantic(images))
    steps = 120 if isinstance(model, SODA) else 60  # its untrained layers bend the path more
    terms, grid = guided(condition, condition, 1.0), model.grid(steps)
    x = invert(model, model.encode(images), terms, grid=grid)
    back = generate(model, x, terms, grid=grid)
    assert float((back - images).abs().mean()) < 0.1 * float(images.abs().mean())


@on(*TOLD)
def test_prompts_are_refused_and_the_empty_condition_is_the_mean_code(model):
    with pytest.raises(Incompatible, match="takes no prompts"):
        model.condition(("hat",), 1)
    assert not model.condition(None, 2).tensors["semantic"].any()


def test_the_codes_prior_is_ddim_in_the_codes_space(diffae):
    from diffusers import DDIMScheduler

    z = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    scheduler = DDIMScheduler.from_config(diffae.scheduler.config)
    scheduler.set_timesteps(diffae.prior_steps)
    expected = z
    for t in scheduler.timesteps:
        out = diffae.code_prior(expected, t.expand(4))
        expected = scheduler.step(out, t, expected).prev_sample
    torch.testing.assert_close(diffae.draw_semantic(z), expected, rtol=1e-4, atol=1e-5)


def test_the_refiner_sees_the_decoded_code(diffusevae, images):
    code, x = diffusevae.encode_semantic(images), torch.randn(3, *diffusevae.latent_shape)
    t = torch.full((3,), 500)
    stacked = torch.cat([x, diffusevae.vae.decode(code)], 1)
    expected = diffusevae.network(stacked, t).sample
    found = diffusevae.forward(x, t, diffusevae.semantic_condition(code))
    assert torch.equal(found, expected)


# ---------------------------------------------------------------- in phases, by layer


def test_before_the_second_phase_no_code_is_given(zoo, images):
    model = InfoDiffusion(path=str(zoo / "infodiffusion"), told_below=500)
    code, x = model.encode_semantic(images), torch.randn(3, *model.latent_shape)
    told, none = model.semantic_condition(code), model.condition(None, 3)
    t = torch.tensor([499, 500, 900])
    same = (model.forward(x, t, told) == model.forward(x, t, none)).flatten(1).all(1)
    assert same.tolist() == [False, True, True]
    whole = InfoDiffusion(path=str(zoo / "infodiffusion"))
    assert not torch.equal(whole.forward(x, t, told), model.forward(x, t, told))
    assert whole.fingerprint() != model.fingerprint()


def test_a_layer_reads_its_own_segment_of_the_code(soda):
    layers, read = [layer for _, layer in modulations(soda.network)], []
    hooks = [f.register_forward_hook(lambda *call: read.append(call[2])) for f in layers]
    code, x, t = torch.zeros(2, 16), torch.randn(1, 3, 16, 16), torch.full((2,), 400)
    code[1, 6:8] = 1.0  # the fourth of eight segments
    soda.forward(x.expand(2, -1, -1, -1), t, soda.semantic_condition(code))
    for hook in hooks:
        hook.remove()
    assert [bool((row[0] != row[1]).any()) for row in read] == [k == 3 for k in range(8)]


def test_an_embedding_without_room_for_the_segments_is_refused():
    with pytest.raises(BadInput, match="make it 80 or longer"):
        SegmentedEncoder(16, (8, 16), layers=8, segment=2, time=64, embedding=79)


def test_codes_of_the_prior_have_the_covariance_that_was_measured(soda):
    root, noise = soda.semantic_encoder.root, torch.randn(3, 16)
    root[0, 1] = 5.0
    found = soda.draw_semantic(noise)
    root[0, 1] = 0.0
    torch.testing.assert_close(found[:, 0], noise[:, 0] + 5 * noise[:, 1])
    torch.testing.assert_close(found[:, 1:], noise[:, 1:])
