"""Models built from diffusers components."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from torch import Tensor

from latentbench.conformance import toy
from latentbench.errors import BadInput, Incompatible, MissingWeights
from latentbench.model import Condition
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.sampling.loop import Intervention, denoise, generate, guided, plain


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return toy.ToyData().batch("test", range(3)).images


# ---------------------------------------------------------------- prompts


def test_conditions_are_the_pipelines_embeddings(latent):
    pipeline = StableDiffusionPipeline(
        latent.vae, latent.text_encoder, latent.tokenizer, latent.network, latent.scheduler,
        None, None, requires_safety_checker=False,
    )  # fmt: skip
    prompts = ["a face with hat", "smile"]
    theirs, empty = pipeline.encode_prompt(prompts, "cpu", 1, True)
    ours = latent.condition(prompts, 2).tensors["encoder_hidden_states"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    null = latent.condition(None, 2).tensors["encoder_hidden_states"]
    torch.testing.assert_close(null, empty, rtol=1e-4, atol=1e-5)


def test_a_prompts_embedding_does_not_depend_on_its_company(latent):
    alone = latent.condition(("smile",), 1).tensors["encoder_hidden_states"]
    both = latent.condition(("hat", "smile"), 2).tensors["encoder_hidden_states"]
    assert torch.equal(alone[0], both[1])


def test_wrong_prompts_are_refused(latent, pixel):
    with pytest.raises(BadInput, match="got 1 prompts for 2 images"):
        latent.condition(("hat",), 2)
    with pytest.raises(BadInput, match=f"at most {toy.TOKENS}"):
        latent.condition((" ".join(["hat"] * toy.TOKENS),), 1)
    with pytest.raises(Incompatible, match="takes no prompts"):
        pixel.condition(("hat",), 1)
    assert pixel.condition(None, 3) == Condition()


def test_own_word_vectors_take_the_place_of_tokens(latent):
    table = latent.text_encoder.get_input_embeddings().weight
    (hat,) = latent.tokenizer("hat", add_special_tokens=False).input_ids
    found = latent.embed_words("a face with <new>", {"<new>": table[hat]})
    torch.testing.assert_close(found, latent.embed("a face with hat"), rtol=1e-4, atol=1e-5)
    with torch.enable_grad():
        vector = table[hat].clone().requires_grad_()
        latent.embed_words("a <new>", {"<new>": vector})[2:].square().sum().backward()
    assert float(vector.grad.norm()) > 0
    plain = latent.embed("a face with hat")
    assert torch.equal(plain, latent.embed("a face with hat"))  # the hook is gone
    with pytest.raises(BadInput, match="tokens"):
        latent.embed_words(" ".join(["hat"] * toy.TOKENS), {})


def test_learned_words_stand_in_captions_as_tokens_do(latent, pixel):
    (hat,) = latent.tokenizer("hat", add_special_tokens=False).input_ids
    words = {"<new>": latent.vocabulary()[hat]}
    found = latent.condition_with_words(("a face with <new>", "smile <new>"), words)
    told = latent.condition(("a face with hat", "smile hat"), 2)
    assert found.tensors.keys() == told.tensors.keys()
    for name, rows in told.tensors.items():
        torch.testing.assert_close(found.tensors[name], rows, rtol=1e-4, atol=1e-5)
    for refused in (pixel.vocabulary, lambda: pixel.condition_with_words(("a <new>",), words)):
        with pytest.raises(Incompatible, match="takes no learned words"):
            refused()


def test_conditions_lerp_repeat_and_stack(latent):
    a, b = latent.condition(("hat", "smile"), 2), latent.condition(None, 2)
    mixed = a.lerp(b, torch.tensor([0.0, 1.0])).tensors["encoder_hidden_states"]
    ea, eb = (c.tensors["encoder_hidden_states"] for c in (a, b))
    assert torch.equal(mixed, torch.stack([ea[0], eb[1]]))
    assert torch.equal(a.repeat(2).tensors["encoder_hidden_states"], ea[[0, 0, 1, 1]])
    both = Condition.concat([a, b]).tensors["encoder_hidden_states"]
    assert torch.equal(both, torch.cat([ea, eb]))


# ---------------------------------------------------------------- images and latents


def test_encode_is_the_scaled_mode(latent, images):
    scale = latent.vae.config.scaling_factor
    mode = latent.vae.encode(images).latent_dist.mode()
    torch.testing.assert_close(latent.encode(images), mode * scale)
    decoded = latent.vae.decode(mode).sample
    torch.testing.assert_close(latent.decode(mode * scale), decoded, rtol=1e-4, atol=1e-5)
    assert latent.latent_shape == tuple(mode.shape[1:])
    assert latent.image_size == toy.SIZE


def test_pixels_are_their_own_latent(pixel, images):
    assert torch.equal(pixel.decode(pixel.encode(images)), images)


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_images_of_another_shape_or_range_are_refused(name, request, images, unchecked):
    model = request.getfixturevalue(name)
    with pytest.raises(BadInput, match="resize them"):
        model.encode(images[..., :8])
    with pytest.raises(BadInput, match="resize them"):
        model.encode(images[0])
    with pytest.raises(BadInput, match="must lie in"):
        model.encode((images + 1) * 127.5)


# ---------------------------------------------------------------- identity


def test_a_fingerprint_is_of_weights_schedule_and_settings(zoo, latent):
    path = str(zoo / "latent")
    same = LatentDiffusion(path=path, steps=5, guidance=3.0)
    assert same.fingerprint() == latent.fingerprint()
    others = [
        LatentDiffusion(path=path, steps=6, guidance=3.0),
        LatentDiffusion(path=path, steps=5, guidance=2.0),
        LatentDiffusion(path=str(zoo / "latent_eps"), steps=5, guidance=3.0),
    ]
    changed = LatentDiffusion(path=path, steps=5, guidance=3.0)
    next(changed.vae.parameters()).data.add_(1e-3)
    prints = [m.fingerprint() for m in (latent, *others, changed)]
    assert len(set(prints)) == 5


def test_a_fingerprint_does_not_change_with_adapters(zoo):
    """Adapters are off by default, so they change no image that the fingerprint stands for."""
    model, other = (PixelDiffusion(path=str(zoo / "pixel"), steps=5) for _ in range(2))
    other.add_adapter("s", LoraConfig(r=2, target_modules=["to_q"]))
    assert model.fingerprint() == other.fingerprint()


def test_networks_are_frozen_and_in_evaluation_mode(pixel, latent):
    for model in (pixel, latent):
        for network in model.networks():
            assert not network.training
            assert not any(p.requires_grad for p in network.parameters())


def test_half_precision_stays_near(zoo, pixel):
    half = PixelDiffusion(path=str(zoo / "pixel"), steps=5, dtype="bfloat16")
    x = torch.randn(1, *pixel.latent_shape, generator=torch.Generator().manual_seed(0))
    terms = guided(Condition(), Condition(), 1.0)
    a, b = (generate(m, x, terms) for m in (pixel, half))
    assert b.dtype == torch.float32
    assert 0 < float((a - b).abs().mean()) < 0.1 * float(a.abs().mean())


# ---------------------------------------------------------------- loading


def test_missing_weights_say_what_to_do(zoo, tmp_path):
    shutil.copytree(zoo / "pixel" / "scheduler", tmp_path / "scheduler")
    with pytest.raises(MissingWeights, match="Give a local folder"):
        PixelDiffusion(path=str(tmp_path))


def test_pickled_weights_are_never_read(zoo, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(zoo / "pixel", folder)
    (file,) = Path(folder / "unet").glob("*.safetensors")
    file.unlink()
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(MissingWeights):
        PixelDiffusion(path=str(folder))


def test_components_may_lie_in_the_root(zoo, tmp_path):
    """As in google/ddpm-celebahq-256: no subfolders."""
    for part in ("unet", "scheduler"):
        shutil.copytree(zoo / "pixel" / part, tmp_path, dirs_exist_ok=True)
    flat = PixelDiffusion(path=str(tmp_path), steps=5)
    x = torch.ones(1, *flat.latent_shape)
    terms = guided(Condition(), Condition(), 1.0)
    nested = PixelDiffusion(path=str(zoo / "pixel"), steps=5)
    assert torch.equal(generate(flat, x, terms), generate(nested, x, terms))


# ---------------------------------------------------------------- cost


def test_evaluations_count_rows_forward_and_backward(latent):
    x = torch.randn(3, *latent.latent_shape, generator=torch.Generator().manual_seed(0))
    condition, t = latent.condition(None, 3), torch.full((3,), 500)
    forward, backward = latent.evaluations.forward, latent.evaluations.backward
    latent.forward(x, t, condition)
    assert (latent.evaluations.forward, latent.evaluations.backward) == (forward + 3, backward)
    with torch.enable_grad():
        latent.forward(x.requires_grad_(), t, condition).sum().backward()
    assert (latent.evaluations.forward, latent.evaluations.backward) == (forward + 6, backward + 3)


def test_a_gradient_of_inner_maps_counts_once_though_it_leaves_the_output_out(latent):
    class FirstMap(Intervention):
        found: Tensor

        def attention(self, step, call):
            self.found = call.query
            return call

    x, told = torch.randn(3, *latent.latent_shape), latent.condition(("hat",) * 3, 3)
    c = told.tensors["encoder_hidden_states"].clone()
    backward = latent.evaluations.backward
    for number in (1, 2):  # of calls on the same leaves
        with torch.enable_grad():
            leaves, maps = (x.requires_grad_(), c.requires_grad_()), FirstMap()
            terms = plain(Condition({"encoder_hidden_states": c}))
            denoise(latent, x, terms, grid=latent.grid(5), level=1, interventions=[maps])
            torch.autograd.grad(maps.found.square().sum(), leaves)
        assert latent.evaluations.backward - backward == 3 * number
