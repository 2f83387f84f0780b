"""Feature layers: what they name, where they lie, and what a change of them does."""

import pytest
import torch
import transformers_toy as ft
from peft import LoraConfig

from latentbench.conformance import toy
from latentbench.errors import BadInput, HookNeverFired
from latentbench.models.dit import DiT
from latentbench.models.flux import Flux
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.loop import Intervention, Recorder, denoise, generate, guided, plain
from latentbench.streams import Streams

IDS = ("a", "b")


@pytest.fixture(scope="module")
def dit(tmp_path_factory):
    path = ft.save_dit(tmp_path_factory.mktemp("dit"), ft.DIT_XL_256, {0: "hat", 1: "smile"})
    return DiT(path=path, steps=3, guidance=1.0)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    path = ft.save_sd3(tmp_path_factory.mktemp("sd3"), ft.SD35_MEDIUM)
    return TransformerFlow(path=path, steps=3, guidance=1.0)


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    path = ft.save_flux(tmp_path_factory.mktemp("flux"), ft.FLUX_SCHNELL, ft.SCHNELL_SCHEDULE)
    settings = {"image_size": 16, "t5_tokens": ft.T5_TOKENS, "embedded_guidance": None}
    return Flux(path=path, steps=3, guidance=1.0, **settings)


@pytest.fixture
def model(request):
    return request.getfixturevalue(request.param)


families = pytest.mark.parametrize(
    "model", ["pixel", "latent", "dit", "sd3", "flux"], indirect=True
)


def start(model):
    """x at level 1, its condition without guidance, and the grid."""
    x = model.prior(Streams(0), IDS).parts
    return next(iter(x.values())), plain(model.unconditional(2)), model.grid()


class Change(Intervention):
    """Changes maps by a function, in the layers that it names."""

    def __init__(self, *layers, by=lambda h: h, window=(0.0, 1.0)) -> None:
        self.layers, self.by, self.window, self.seen = layers, by, window, []

    def features(self, step, layer, h):
        self.seen.append((step.index, layer, tuple(h.shape)))
        return self.by(h)


@families
def test_every_layer_is_read_in_the_order_in_which_it_runs(model):
    x, terms, grid = start(model)
    recorder, log = Recorder(layers=model.feature_layers()), Change(*model.feature_layers())
    before = denoise(model, x, terms, grid=grid, level=1)
    after = denoise(model, x, terms, grid=grid, level=1, interventions=[log, recorder])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert tuple(layer for _, layer, _ in log.seen) == model.feature_layers()
    assert len(log.seen) >= 12 and all(len(shape) == 5 for *_, shape in log.seen)
    assert {shape[:2] for *_, shape in log.seen} == {(1, 2)}
    for layer, maps in recorder.maps.items():
        assert set(maps) == {1} and maps[1].shape[0] == 2, layer


@families
def test_every_layer_can_be_added_to_and_replaced(model):
    """One whole row of maps moved moves the prediction of that row alone."""
    x, terms, grid = start(model)
    before, _ = denoise(model, x, terms, grid=grid, level=1)
    silent = []
    for layer in model.feature_layers():
        bump = Change(layer, by=row_0_moved)
        after, _ = denoise(model, x, terms, grid=grid, level=1, interventions=[bump])
        torch.testing.assert_close(after[1], before[1], rtol=1e-4, atol=1e-4)
        moved = float((after[0] - before[0]).abs().max())
        silent += [] if moved > 1e-5 else [layer]
    assert silent == []


def row_0_moved(h):
    pattern = torch.randn(h.shape[2:], generator=torch.Generator().manual_seed(0))
    return h + pattern * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1)


@families
def test_the_middle_layer_is_the_bottleneck(model):
    x, terms, grid = start(model)
    middle = model.middle_layer()
    recorder = Recorder(bottleneck=True, layers=[middle, f"{middle}:input"])
    denoise(model, x, terms, grid=grid, level=1, interventions=[recorder])
    assert torch.equal(recorder.maps[middle][1], recorder.h[1])
    assert recorder.maps[f"{middle}:input"][1].shape == recorder.h[1].shape
    assert not torch.equal(recorder.maps[f"{middle}:input"][1], recorder.h[1])


@pytest.mark.parametrize("model", ["pixel", "latent"], indirect=True)
def test_a_residual_branch_is_what_the_block_adds(model):
    """Zero in its place leaves the shortcut alone, which a hook on the output could not do."""
    x, terms, grid = start(model)
    name = "down_blocks.0.resnets.0"  # as many channels before as after: a plain shortcut
    block = model.network.get_submodule(name)
    assert block.conv_shortcut is None
    inputs, recorder = [], Recorder(layers=[name])
    handle = block.register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    off = Change(f"{name}:residual", by=torch.zeros_like)
    try:
        denoise(model, x, terms, grid=grid, level=1, interventions=[off, recorder])
    finally:
        handle.remove()
    expected = inputs[0] / block.output_scale_factor
    torch.testing.assert_close(recorder.maps[name][1], expected)


def test_skip_and_backbone_are_the_maps_that_the_way_up_reads(latent):
    """As diffusers joins them: its own FreeU is the same as a change of these two maps."""
    from diffusers.utils.torch_utils import fourier_filter

    class FreeU(Intervention):
        layers = tuple(
            f"{name}:{part}"
            for name in latent.feature_layers()
            if name.startswith("up_blocks.") and name.count(".") == 3 and ":" not in name
            and "resnets" in name
            for part in ("backbone", "skip")
        )  # fmt: skip

        def features(self, step, layer, h):
            stage = int(layer.split(".")[1])
            if layer.endswith(":backbone"):
                half = h.shape[2] // 2
                return torch.cat([h[:, :, :half] * (1.3, 1.6)[stage], h[:, :, half:]], 2)
            rows = fourier_filter(h.flatten(0, 1), threshold=1, scale=(0.9, 0.4)[stage])
            return rows.reshape(h.shape)

    x, terms, grid = start(latent)
    found, _ = denoise(latent, x, terms, grid=grid, level=1, interventions=[FreeU()])
    for stage, block in enumerate(latent.network.up_blocks):
        block.resolution_idx = stage
        for name, value in zip(("b1", "b2", "s1", "s2"), (1.3, 1.6, 0.9, 0.4), strict=True):
            setattr(block, name, value)
    try:
        expected, _ = denoise(latent, x, terms, grid=grid, level=1)
    finally:
        for block in latent.network.up_blocks:
            for name in ("b1", "b2", "s1", "s2"):
                setattr(block, name, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain_x0, _ = denoise(latent, x, terms, grid=grid, level=1)
    assert float((found - plain_x0).abs().max()) > 1e-3


def test_a_block_of_joint_attention_hands_on_its_text_unchanged(sd3, flux):
    for model in (sd3, flux):
        x, terms, grid = start(model)
        block = model.feature_layers()[3]
        before, after = [], []
        for seen, by in ((before, lambda h: h), (after, lambda h: h + 1)):
            hook = model.network.get_submodule(block).register_forward_hook(
                lambda m, a, out, seen=seen: seen.append(out)
            )
            try:
                denoise(model, x, terms, grid=grid, level=1,
                        interventions=[Change(block, by=by)])  # fmt: skip
            finally:
                hook.remove()
        (text, image), (same, moved) = before[0], after[0]
        assert torch.equal(text, same)
        assert torch.equal(image, moved)  # the tap comes after hooks that were there before it


def test_only_layers_that_were_asked_for_cost_anything(pixel):
    hooks = []
    original = torch.nn.Module.register_forward_hook

    class Idle(Intervention):
        def features(self, step, layer, h):
            raise AssertionError("asked for no layer")

    def counted(self, *args, **options):
        hooks.append(self)
        return original(self, *args, **options)

    torch.nn.Module.register_forward_hook = counted
    try:
        generate(pixel, start(pixel)[0], start(pixel)[1], interventions=[Idle(), Recorder()])
        assert hooks == []
        late = Change("mid_block", window=(0.6, 1.0))
        generate(pixel, start(pixel)[0], start(pixel)[1], interventions=[late])
        assert len(hooks) == len(late.seen) == 2
    finally:
        torch.nn.Module.register_forward_hook = original


def test_an_unknown_layer_is_refused_before_any_evaluation(latent):
    x, terms, _ = start(latent)
    before = latent.evaluations.forward
    with pytest.raises(
        BadInput, match=r"'up_blocks.0.resnet.0'; did you mean up_blocks.0.resnets.0"
    ):
        generate(latent, x, terms, interventions=[Change("up_blocks.0.resnet.0")])
    assert latent.evaluations.forward == before


def test_a_model_without_layers_refuses_them_and_one_that_ignores_them_is_found_out(gaussian):
    x, terms, _ = start(gaussian)
    with pytest.raises(BadInput, match="unknown feature layer of GaussianModel 'mid_block'"):
        generate(gaussian, x, terms, interventions=[Recorder(layers=["mid_block"])])

    class Careless(toy.GaussianModel):
        def feature_layers(self):
            return ("mid_block",)

    with pytest.raises(HookNeverFired, match="never called for layer mid_block"):
        generate(Careless(), x, terms, interventions=[Recorder(layers=["mid_block"])])


def test_interventions_chain_on_a_layer_and_leave_no_trace(pixel):
    x, terms, grid = start(pixel)
    layer = "up_blocks.0.resnets.0"
    twice, once = (
        denoise(pixel, x, terms, grid=grid, level=1, interventions=changes)[0]
        for changes in (
            [Change(layer, by=lambda h: h * 2), Change(layer, by=lambda h: h + 1)],
            [Change(layer, by=lambda h: h * 2 + 1)],
        )
    )
    assert torch.equal(twice, once)
    plain_x0, _ = denoise(pixel, x, terms, grid=grid, level=1)
    with pytest.raises(RuntimeError, match="broken"):
        denoise(pixel, x, terms, grid=grid, level=1, interventions=[Change(layer, by=broken)])
    assert torch.equal(denoise(pixel, x, terms, grid=grid, level=1)[0], plain_x0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pixel.network.modules())


def broken(h):
    raise RuntimeError("broken")


def test_maps_of_one_branch_of_guidance(latent):
    """Plug-and-Play's step: the maps of one row put into another, one branch at a time."""
    x, _, grid = start(latent)
    terms = guided(latent.condition(("hat", "smile"), 2), latent.unconditional(2), 2.0)
    copied = Recorder(layers=["up_blocks.0.resnets.0:residual"])

    class FromRow0(Intervention):
        layers = copied.layers

        def features(self, step, layer, h):
            assert step.branches == ("null", "condition") and h.shape[:2] == (2, 2)
            return h[:, :1].expand_as(h)

    change = [FromRow0(), copied]
    x0, _ = denoise(latent, x, terms, grid=grid, level=1, interventions=change)
    maps = copied.maps[copied.layers[0]][1]
    assert torch.equal(maps[0], maps[1])
    before, _ = denoise(latent, x, terms, grid=grid, level=1)
    torch.testing.assert_close(x0[0], before[0], rtol=1e-4, atol=1e-4)
    assert float((x0[1] - before[1]).abs().max()) > 1e-3


def test_gradients_reach_a_change_of_a_layer(pixel):
    x, terms, grid = start(pixel)
    with torch.enable_grad():
        shift = torch.zeros(1, requires_grad=True)
        change = Change("up_blocks.0", by=lambda h: h + shift)
        x0, _ = denoise(pixel, x, terms, grid=grid, level=1, interventions=[change])
        x0.square().mean().backward()
    assert float(shift.grad.abs()) > 0


def test_a_residual_branch_is_tapped_with_its_adapter(zoo):
    """An adapter takes a layer's place in the network; the tap looks the layer up again."""
    model = PixelDiffusion(path=str(zoo / "pixel"), steps=3)
    x, terms, grid = start(model)
    name = "down_blocks.0.resnets.0:residual"
    model.feature_layers()
    config = LoraConfig(r=1, target_modules=["down_blocks.0.resnets.0.conv2"])
    weights = model.add_adapter("one", config)

    class On(Intervention):
        def adapters(self, step):
            return {"one": 1.0}

    for p in weights:
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(0))
    bare, adapted = Recorder(layers=[name]), Recorder(layers=[name])
    denoise(model, x, terms, grid=grid, level=1, interventions=[bare])
    denoise(model, x, terms, grid=grid, level=1, interventions=[On(), adapted])
    assert float((bare.maps[name][1] - adapted.maps[name][1]).abs().max()) > 1e-3
