"""What methods ask of every family alike: prior, codes, conditions, samples, inversions."""

from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import Incompatible
from latentbench.model import Condition
from latentbench.sampling.loop import Intervention, generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Latent, Space

IDS = ("a", "b")
FAMILIES = ("pixel", "latent", "vae", "gan", "diffae", "diffusevae")
CODED = {
    "vae": Space.VAE, "gan": Space.STYLE, "diffae": Space.SEMANTIC, "diffusevae": Space.SEMANTIC
}  # fmt: skip


@pytest.fixture
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return toy.ToyData().batch("test", range(2))


families = pytest.mark.parametrize("model", FAMILIES, indirect=True)


@families
def test_a_sample_of_the_prior_is_an_image_per_id(model):
    images = model.sample(model.prior(Streams(0), IDS))
    assert images.shape == (2, 3, toy.SIZE, toy.SIZE)
    alone = model.sample(model.prior(Streams(0), IDS[1:]))
    torch.testing.assert_close(alone[0], images[1], rtol=1e-3, atol=1e-3)
    assert float((images[0] - images[1]).abs().max()) > 1e-3


@pytest.mark.parametrize(("name", "space"), CODED.items())
def test_a_code_is_in_the_space_of_the_models_own_encoder(name, space, batch, request):
    model = request.getfixturevalue(name)
    code = model.code_of(batch.images)
    assert set(code.parts) == {space} and len(code) == 2
    found = model.invert(batch, Cache(None))
    assert torch.equal(found.parts[space], code.parts[space])


@pytest.mark.parametrize("model", ["pixel", "latent"], indirect=True)
def test_a_model_without_an_encoder_says_nothing_of_images(model, batch):
    assert model.code_of(batch.images).parts == {}


@families
def test_a_model_gives_back_what_it_inverted(model, batch):
    """As well as it can: untrained denoisers nearly, the rest as their autoencoders do."""
    latent = model.invert(batch, Cache(None), steps=50)
    found = model.sample(latent, guidance=1.0, steps=50)
    parts = set(latent.parts)
    if Space.NOISE in parts:
        expected = model.reconstruction_truth(batch.images)
        assert float((found - expected).abs().mean()) < 0.15
    else:
        assert torch.equal(found, model.decode(model.encode(batch.images)))


def test_a_denoisers_sample_is_the_loop_under_guidance(latent):
    x = latent.prior(Streams(0), IDS).parts[Space.NOISE]
    words = ("a face with hat", "smile")
    yes, no = latent.condition(words, 2), latent.condition(None, 2)
    code = Latent({Space.NOISE: x}, prompts=words)
    for scale in (1.0, 2.0):
        expected = latent.decode(generate(latent, x, guided(yes, no, scale)))
        assert torch.equal(latent.sample(code, guidance=scale), expected)
    assert torch.equal(latent.sample(code), latent.sample(code, guidance=latent.guidance))
    other = latent.condition(("glasses",) * 2, 2)
    told = latent.decode(generate(latent, x, guided(yes, other, 2.0)))
    negative = latent.unconditional(2, "glasses")
    assert torch.equal(latent.sample(code, null=negative, guidance=2.0), told)
    late = latent.decode(generate(latent, x, guided(yes, no, 1.0), start=3))
    assert torch.equal(latent.sample(replace(code, start=3), guidance=1.0), late)


def test_what_a_latent_tells_is_its_prompts_or_its_code(latent, pixel, diffae, vae):
    noise = Streams(0).normal("prior", IDS, (1,))
    words = Latent({Space.NOISE: noise}, prompts=("hat", "smile"))
    told, expected = latent.condition_of(words), latent.condition(("hat", "smile"), 2)
    assert torch.equal(*(c.tensors["encoder_hidden_states"] for c in (told, expected)))
    assert pixel.condition_of(words) == Condition() and vae.condition_of(words) == Condition()
    code = torch.ones(2, 16)
    coded = diffae.condition_of(Latent({Space.SEMANTIC: code})).tensors["semantic"]
    assert torch.equal(coded, code)
    assert float(diffae.condition_of(words).tensors["semantic"].abs().max()) == 0


def test_noise_is_pushed_and_a_code_is_decoded(gan):
    z = torch.randn(2, *gan.latent_shape, generator=torch.Generator().manual_seed(0))
    w = gan.push(z)
    pushed, decoded = gan.sample(Latent({Space.NOISE: z})), gan.sample(Latent({Space.STYLE: w}))
    assert torch.equal(pushed, decoded) and torch.equal(decoded, gan.decode(w))


def test_a_model_without_a_loop_refuses_interventions(vae):
    with pytest.raises(Incompatible, match="no sampling loop to change"):
        vae.sample(vae.prior(Streams(0), IDS), interventions=[Intervention()])


def test_a_model_that_cannot_invert_says_so(batch):
    class Blind(toy.GaussianModel):
        def invert(self, *args, **options):
            return super(toy.Denoiser, self).invert(*args, **options)

    with pytest.raises(Incompatible, match="no encoder"):
        Blind().invert(batch, Cache(None))
