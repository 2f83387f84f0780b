"""A model that was lent for tuning comes back byte for byte."""

import pytest
import torch
from peft import LoraConfig

from latentbench.conformance import toy
from latentbench.content import content_hash
from latentbench.errors import BadInput
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.models.vae import VariationalAutoencoder
from latentbench.streams import Streams
from latentbench.types import Space

LORA = LoraConfig(r=1, target_modules=["to_q"])


def state(model) -> dict:
    """All that a user could notice: bytes, flags, gradients, modes, structure, hooks."""
    found = {}
    for number, network in enumerate(model.networks()):
        for name, module in network.named_modules():
            key = f"{number}.{name}"
            found[key] = (id(module), type(module), module.training, len(module._forward_hooks))
        for name, p in [*network.named_parameters(), *network.named_buffers()]:
            bits = content_hash(p)
            found[f"{number}.{name}:value"] = (id(p), bits, p.requires_grad, p.grad is None)
    return found


def tune(weights, image) -> None:
    """One step that changes every weight."""
    optimizer = torch.optim.SGD(weights, 1.0)
    image.square().sum().backward()
    optimizer.step()


@pytest.fixture
def model(zoo):
    return LatentDiffusion(path=str(zoo / "latent"), steps=3, guidance=1.0)


def latents(model, rows: int = 2) -> torch.Tensor:
    return Streams(0).normal("x", tuple("abcd"[:rows]), model.latent_shape)


def test_a_tuned_decoder_is_given_back(model):
    before, z = state(model), latents(model)
    plain = model.decode(z)
    with torch.enable_grad(), model.borrowed("decoder") as weights:
        assert all(w.requires_grad for w in weights)
        tune(weights, model.decode(z))
        assert float((model.decode(z) - plain).detach().abs().max()) > 1e-3
        assert not any(p.requires_grad for p in model.network.parameters())
    assert state(model) == before
    assert torch.equal(model.decode(z), plain)


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_a_model_without_a_sampler_lends_its_decoder(name, request):
    model = request.getfixturevalue(name)
    before, code = state(model), model.code_of(toy.ToyData().batch("test", [0]).images)
    plain = model.sample(code)
    with torch.enable_grad(), model.borrowed("decoder") as weights:
        tune(weights, model.sample(code))
        assert float((model.sample(code) - plain).detach().abs().max()) > 1e-3
    assert state(model) == before and torch.equal(model.sample(code), plain)


def test_a_tuned_network_is_given_back_after_an_exception(model):
    before, prior = state(model), model.prior(Streams(0), ("a", "b"))
    plain = model.sample(prior)
    with pytest.raises(KeyError), torch.enable_grad(), model.borrowed("network") as weights:
        tune(weights, model.sample(prior))
        raise KeyError
    assert state(model) == before
    assert torch.equal(model.sample(prior), plain)


def test_structure_modes_hooks_and_adapters_are_given_back(model):
    before, prior = state(model), model.prior(Streams(0), ("a", "b"))
    plain = model.sample(prior)
    with model.borrowed("network"):
        model.add_adapter("one", LORA)
        model.network.train()
        model.network.conv_in = torch.nn.Identity()
        model.network.extra = torch.nn.Linear(2, 2)
        model.vae.decoder.register_forward_hook(lambda *args: None)
        bias = model.network.conv_out.bias
        bias.data = torch.zeros(1)
        model.network.time_embedding.linear_1.weight = torch.nn.Parameter(torch.ones(1))
    assert state(model) == before
    assert not hasattr(model.network, "extra") and not hasattr(model.network, "peft_config")
    assert torch.equal(model.sample(prior), plain)
    assert model.add_adapter("one", LORA)  # the name is free again


def test_an_adapter_that_was_there_keeps_its_weights_and_scale(zoo):
    model = PixelDiffusion(path=str(zoo / "pixel"), steps=3)
    weights = model.add_adapter("one", LORA)
    for w in weights:
        torch.nn.init.normal_(w, generator=torch.Generator().manual_seed(0))
    prior = model.prior(Streams(0), ("a", "b"))

    def adapted():
        with model.adapter_scales({"one": 0.5}):
            return model.sample(prior)

    plain, bare, before = adapted(), model.sample(prior), state(model)
    with model.borrowed("network") as lent, torch.no_grad():
        for w in lent:
            w.add_(0.1)
        model.add_adapter("two", LORA)
    assert state(model) == before
    assert torch.equal(adapted(), plain) and torch.equal(model.sample(prior), bare)


def test_loans_nest(model):
    before = state(model)
    with torch.no_grad(), model.borrowed("decoder") as outer:
        outer[0].add_(1)
        between = state(model)
        with model.borrowed("decoder", "network") as inner:
            for w in inner:
                w.mul_(2)
        assert state(model) == between
    assert state(model) == before


def test_a_fingerprint_is_of_the_weights_as_they_are(model, vae):
    """Else inversions under tuned weights would be taken for the model's own."""
    for one, name in ((model, "decoder"), (model, "network"), (vae, "decoder")):
        before = one.fingerprint()
        with torch.no_grad(), one.borrowed(name) as weights:
            assert one.fingerprint() == before
            weights[0].add_(1)
            tuned = one.fingerprint()
            assert tuned != before
            weights[0].add_(1)
            assert one.fingerprint() not in (before, tuned)
        assert one.fingerprint() == before


def test_a_fingerprint_first_asked_for_during_a_loan_is_not_kept(zoo):
    model, other = (VariationalAutoencoder(path=str(zoo / "vae")) for _ in range(2))
    with torch.no_grad(), model.borrowed("decoder") as weights:
        weights[0].add_(1)
        model.fingerprint()
    assert model.fingerprint() == other.fingerprint()


def test_what_cannot_be_lent_is_refused(model, pixel, gaussian):
    with pytest.raises(BadInput, match="'decodr'; did you mean decoder"), model.borrowed("decodr"):
        pass
    for one in (pixel, gaussian):
        with pytest.raises(BadInput, match="part of"), one.borrowed("decoder"):
            pass
    with pytest.raises(BadInput, match="known: decoder, network"), model.borrowed():
        pass


def test_adapters_are_taken_out(zoo):
    model = PixelDiffusion(path=str(zoo / "pixel"), steps=3)
    before, prior = state(model), model.prior(Streams(0), ("a", "b"))
    plain = model.sample(prior)
    model.remove_adapters()
    for name in ("one", "two"):
        for w in model.add_adapter(name, LORA):
            torch.nn.init.normal_(w)
    assert state(model) != before
    model.remove_adapters()
    assert state(model) == before and torch.equal(model.sample(prior), plain)
    assert Space.WEIGHTS in model.spaces and model.add_adapter("one", LORA)
