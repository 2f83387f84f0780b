"""Low-rank changes of weights: one per row, as peft's LoRA and as changed weights would be."""

import pytest
import torch
import transformers_toy as small
from peft import LoraConfig

from latentbench.conformance import toy_models
from latentbench.errors import BadInput, HookNeverFired, Incompatible
from latentbench.model import LowRank
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.loop import denoise, generate, guided, plain
from latentbench.streams import Streams
from methods.directions.adapters import CROSS, EVERY, Adapted, first_down, layers_of


def noise(model, rows):
    return torch.randn(rows, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def changes(model, rows, endings=EVERY, rank=2):
    """One change per row, and its size, large enough to be seen."""
    layers, streams = layers_of(model, endings), Streams(0)
    down = first_down(layers, rows, rank, streams, "down")
    ups = {n: torch.randn(rows, size[1], rank, generator=streams.generator("up", n))
           for n, size in layers.items()}  # fmt: skip
    return {n: LowRank(down[n], ups[n]) for n in layers}


def predicted(model, x, change):
    told = None if change is None else [Adapted(change)]
    settings = {"grid": model.grid(), "level": 1, "interventions": told or ()}
    return denoise(model, x, plain(model.unconditional(len(x))), **settings)[1]


@pytest.mark.parametrize("name", ["pixel", "latent"])
def test_each_row_has_the_weights_of_its_own_change(name):
    """Against the network with the product added to its weights, a row at a time."""
    model, x = toy_models.model(name), noise(toy_models.model(name), 3)
    change = changes(model, 3)
    found = predicted(model, x, change)
    with model.borrowed("network"), torch.no_grad():
        kept = {n: model.network.get_submodule(n).weight.clone() for n in change}
        for row in range(3):
            for n, c in change.items():
                model.network.get_submodule(n).weight.copy_(kept[n] + c.up[row] @ c.down[row])
            alone = predicted(model, x, None)
            torch.testing.assert_close(found[row], alone[row], rtol=1e-4, atol=1e-4)
    assert float((found - predicted(model, x, None)).abs().max()) > 1e-2


def test_it_is_what_peft_computes(zoo):
    from latentbench.models.pixel_diffusion import PixelDiffusion

    model = PixelDiffusion(path=str(zoo / "pixel"), steps=5)
    change = {n: LowRank(c.down[:1], c.up[:1]) for n, c in changes(model, 1).items()}
    x = noise(model, 2)
    expected = predicted(model, x, change)
    weights = model.add_adapter("s", LoraConfig(r=2, lora_alpha=2, target_modules=list(change)))
    assert len(weights) == 2 * len(change)
    with torch.no_grad():
        for n, c in change.items():
            layer = model.network.get_submodule(n)
            layer.lora_A["s"].weight.copy_(c.down[0])
            layer.lora_B["s"].weight.copy_(c.up[0])
    with model.adapter_scales({"s": 1.0}):
        theirs = predicted(model, x, None)
    torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-5)
    both = predicted(model, x, change)  # the adapter is off, its layers are changed all the same
    torch.testing.assert_close(both, expected, rtol=1e-5, atol=1e-5)


def test_linear_layers_have_the_same_names_with_and_without_adapters(zoo):
    from latentbench.models.pixel_diffusion import PixelDiffusion

    bare, model = (PixelDiffusion(path=str(zoo / "pixel"), steps=5) for _ in range(2))
    change, x = changes(bare, 2), noise(bare, 2)
    model.add_adapter("s", LoraConfig(r=2, target_modules=list(change)))
    assert model.linear_layers() == bare.linear_layers()
    expected = predicted(bare, x, change)
    torch.testing.assert_close(predicted(model, x, change), expected, rtol=1e-5, atol=1e-5)
    model.remove_adapters()
    torch.testing.assert_close(predicted(model, x, change), expected, rtol=1e-5, atol=1e-5)


def test_a_scale_of_zero_is_the_plain_model_to_the_bit(latent):
    x = noise(latent, 2)
    none = {n: LowRank(c.down, 0 * c.up) for n, c in changes(latent, 2).items()}
    assert torch.equal(predicted(latent, x, none), predicted(latent, x, None))


@pytest.mark.slow
def test_every_branch_is_changed_and_a_window_is_kept(latent):
    x, change = noise(latent, 2), changes(latent, 2)
    terms = guided(latent.condition(["a face", "hat"], 2), latent.unconditional(2), 3.0)
    plainly = generate(latent, x, terms)
    late, whole = (
        generate(latent, x, terms, interventions=[Adapted(change, (start, 1.0))])
        for start in (0.8, 0.0)
    )
    first = [
        generate(latent, x, terms, stop=1, interventions=given)
        for given in ([], [Adapted(change, (0.8, 1.0))], [Adapted(change)])
    ]
    assert torch.equal(first[0], first[1]) and not torch.allclose(first[0], first[2])
    gaps = [float((images - plainly).abs().max()) for images in (late, whole)]
    assert min(gaps) > 1e-3
    swapped = {n: LowRank(c.down.flip(0), c.up.flip(0)) for n, c in change.items()}
    back = [t.__class__(t.branch, t.condition.map(lambda v: v.flip(0)), t.weight) for t in terms]
    mirrored = generate(latent, x.flip(0), back, interventions=[Adapted(swapped)]).flip(0)
    torch.testing.assert_close(mirrored, whole, rtol=1e-4, atol=1e-4)


def test_two_changes_of_a_layer_add_up_and_gradients_are_counted(pixel):
    x, change = noise(pixel, 2), changes(pixel, 2)
    twice = {n: LowRank(c.down, 2 * c.up) for n, c in change.items()}
    settings = {"grid": pixel.grid(), "level": 1}
    terms = plain(pixel.unconditional(2))
    both = denoise(pixel, x, terms, interventions=[Adapted(change), Adapted(change)], **settings)
    torch.testing.assert_close(both[1], predicted(pixel, x, twice), rtol=1e-4, atol=1e-4)
    ups = {n: c.up.clone().requires_grad_() for n, c in change.items()}
    before = pixel.evaluations.backward
    with torch.enable_grad():
        own = {n: LowRank(c.down, ups[n]) for n, c in change.items()}
        predicted(pixel, x, own).square().mean().backward()
    assert pixel.evaluations.backward == before + 2
    assert all(float(up.grad.abs().max()) > 0 for up in ups.values())


def test_what_does_not_fit_is_refused(pixel, latent, tmp_path):
    x = noise(pixel, 3)
    with pytest.raises(BadInput, match="got 2 low-rank changes for 3 rows"):
        predicted(pixel, x, changes(pixel, 2))
    one = next(iter(changes(pixel, 1).values()))
    with pytest.raises(BadInput, match="unknown linear layer"):
        predicted(pixel, x, {"mid_block.to_qq": one})
    assert set(layers_of(latent, CROSS)) < set(layers_of(latent, EVERY))
    with pytest.raises(Incompatible, match=r"ends in .attn2.to_k"):
        layers_of(pixel, CROSS)
    shared = TransformerFlow(path=small.save_sd3(tmp_path, small.SD35_MEDIUM), steps=4)
    assert any(name.endswith(CROSS) for name in shared.linear_layers())  # of image tokens alone
    with pytest.raises(Incompatible, match="has no cross-attention"):
        layers_of(shared, CROSS)
    pixel.network.add_module("unused", torch.nn.Linear(2, 2))
    try:
        del pixel.__dict__["_linear"]
        with pytest.raises(HookNeverFired, match="never called its unused"):
            predicted(pixel, x, {"unused": LowRank(torch.ones(1, 1, 2), torch.ones(1, 2, 1))})
    finally:
        del pixel.network.unused, pixel.__dict__["_linear"]
