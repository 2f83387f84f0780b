"""Flow-matching transformers, on the configs of Stable Diffusion 3 and 3.5, shrunk.

The laws of joint flows are tested here for FLUX too; the rest of FLUX in test_flux.py.
"""

import pytest
import torch
import transformers_toy as small
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from peft import LoraConfig

from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import BadInput, MissingWeights
from latentbench.model import Condition
from latentbench.models.flux import Flux
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.parameterization import flow_grid
from latentbench.sampling.loop import Intervention, generate, guided, invert
from methods.interpolation.aid import AttentionInterpolation

PROMPTS = ("a face with hat", "smile")
CONFIGS = {"sd3_medium": small.SD3_MEDIUM, "sd35_medium": small.SD35_MEDIUM}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sd3")
    made = {name: small.save_sd3(root / name, config) for name, config in CONFIGS.items()}
    return made | {"t5": small.save_sd3(root / "t5", small.SD3_MEDIUM, t5=True)}


@pytest.fixture(scope="module", params=["sd35_medium", "flux1_dev"])
def flow(request, folders, tmp_path_factory):
    if request.param == "sd35_medium":
        return TransformerFlow(path=folders["sd35_medium"], t5_tokens=small.T5_TOKENS, steps=4)
    folder = small.save_flux(tmp_path_factory.mktemp("flux"), small.FLUX_DEV, small.DEV_SCHEDULE)
    return Flux(path=folder, image_size=16, t5_tokens=small.T5_TOKENS, steps=4)


def noise(model, rows=2):
    return torch.randn(rows, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def terms(model, scale=3.0):
    return guided(model.condition(PROMPTS, 2), model.condition(None, 2), scale)


def pipeline_of(model):
    parts = dict(zip(("tokenizer", "tokenizer_2", "tokenizer_3"), model.tokenizers, strict=False))
    pipeline = StableDiffusion3Pipeline(
        **{"tokenizer_3": None, **parts}, transformer=model.network, vae=model.vae,
        text_encoder=model.clip[0], text_encoder_2=model.clip[1], text_encoder_3=model.t5,
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(model.scheduler.config),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd3_medium", "sd35_medium", "t5"])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_generation_is_stable_diffusion_3_pipelines(folders, name, scale):
    model = TransformerFlow(path=folders[name], t5=name == "t5", t5_tokens=small.T5_TOKENS, steps=4)
    theirs = pipeline_of(model)(
        list(PROMPTS), num_inference_steps=4, guidance_scale=scale, latents=noise(model),
        max_sequence_length=small.T5_TOKENS, height=16, width=16, output_type="pt",
    ).images  # fmt: skip
    ours = model.decode(generate(model, noise(model), terms(model, scale)))
    assert float(((ours / 2 + 0.5).clamp(0, 1) - theirs).abs().max()) < 1e-5


@torch.no_grad()
def test_conditions_are_the_pipelines_embeddings(folders):
    model = TransformerFlow(path=folders["t5"], t5=True, t5_tokens=small.T5_TOKENS)
    tokens, empty, pooled, empty_pooled = pipeline_of(model).encode_prompt(
        list(PROMPTS), None, None, max_sequence_length=small.T5_TOKENS
    )
    ours, null = model.condition(PROMPTS, 2).tensors, model.condition(None, 2).tensors
    torch.testing.assert_close(ours["encoder_hidden_states"], tokens)
    torch.testing.assert_close(ours["pooled_projections"], pooled)
    torch.testing.assert_close(null["encoder_hidden_states"], empty)
    torch.testing.assert_close(null["pooled_projections"], empty_pooled)
    with pytest.raises(BadInput, match="shorten it"):
        model.condition((" ".join(["hat"] * toy.TOKENS),), 1)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_are_the_schedulers(shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    grid = flow_grid(scheduler, 7, tokens=16)
    torch.testing.assert_close(grid.sigma[0], torch.tensor(1.0, dtype=torch.float64))
    assert grid.sigma[-1] == 0 and bool((grid.sigma.diff() < 0).all())
    torch.testing.assert_close(grid.timesteps.double(), 1000 * grid.sigma[:-1])


def test_a_shift_that_depends_on_the_resolution_grows_with_it():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    few, many = (flow_grid(scheduler, 7, tokens=n).sigma[3] for n in (256, 4096))
    assert many > few


class Watch(Intervention):
    """Keeps what it saw and changes nothing."""

    def bottleneck(self, step, h):
        self.h = h
        return h

    def attention(self, step, call):
        self.tokens = getattr(self, "tokens", set()) | {call.key.shape[2]}
        return call.attend()

    def context(self, step, layer, context):
        return context


def test_taps_that_change_nothing_change_nothing(flow):
    watch = Watch()
    plain = generate(flow, noise(flow), terms(flow))
    found = generate(flow, noise(flow), terms(flow), interventions=[watch])
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)
    assert watch.h.shape == (2, 2, 32, 4, 4)
    if isinstance(flow, Flux):
        assert watch.tokens == {16 + small.T5_TOKENS}
    else:  # image tokens alone in the second attention of 3.5
        assert watch.tokens == {16, 16 + toy.TOKENS + small.T5_TOKENS}
    assert len(flow.attention_layers()) == 3 + 2


class Deaf(Intervention):
    """Lets image tokens attend to image tokens alone."""

    def attention(self, step, call):
        return call.attend(key=call.key[:, :, :16], value=call.value[:, :, :16])


def test_attention_to_text_can_be_cut(flow):
    """With the text out of sight, prompts of equal pooled vectors give equal images."""
    pooled = flow.condition(PROMPTS, 2).tensors["pooled_projections"]
    images = []
    for prompts in (PROMPTS, PROMPTS[::-1]):
        tokens = flow.condition(prompts, 2).tensors["encoder_hidden_states"]
        c = Condition({"encoder_hidden_states": tokens, "pooled_projections": pooled})
        images.append([
            generate(flow, noise(flow), guided(c, c, 1.0), interventions=changes)
            for changes in ([], [Deaf()])
        ])  # fmt: skip
    (heard, deaf), (other_heard, other_deaf) = images
    torch.testing.assert_close(deaf, other_deaf)
    assert float((heard - other_heard).abs().max()) > 1e-4


def test_gradients_reach_x_and_the_bottleneck(flow):
    shift = torch.zeros(1, 1, 32, 4, 4, requires_grad=True)

    class Shift(Intervention):
        def bottleneck(self, step, h):
            return h + shift

    x = noise(flow).requires_grad_()
    with torch.enable_grad():
        generate(flow, x, terms(flow), start=3, interventions=[Shift()]).square().sum().backward()
    assert x.grad is not None and shift.grad is not None
    assert float(x.grad.abs().sum()) > 0 and float(shift.grad.abs().sum()) > 0


def test_a_row_does_not_depend_on_its_neighbours(flow):
    x, both = noise(flow), terms(flow)
    other = torch.cat([x[:1], x[:1]])
    assert torch.equal(generate(flow, x, both)[0], generate(flow, other, both)[0])
    assert torch.equal(generate(flow, x, both), generate(flow, x, both))


@pytest.mark.slow
def test_inversion_leads_back(flow):
    free = guided(flow.condition(PROMPTS, 2), Condition(), 1.0)
    grid, z = flow.grid(200), 0.5 * noise(flow)
    found = generate(flow, invert(flow, z, free, grid=grid), free, grid=grid)
    assert float((found - z).abs().mean()) < 0.05 * float(z.abs().mean())


def test_adapters_act_within_their_scales(flow):
    plain = generate(flow, noise(flow), terms(flow))
    weights = flow.add_adapter("s", LoraConfig(r=2, target_modules=["to_q", "add_k_proj"]))
    for weight in weights:
        torch.nn.init.normal_(weight)
    with flow.adapter_scales({"s": 1.0}):
        assert not torch.equal(generate(flow, noise(flow), terms(flow)), plain)
    assert torch.equal(generate(flow, noise(flow), terms(flow)), plain)


def test_methods_of_separate_attention_are_refused_with_a_reason():
    asks = toy.Asks(verb="interpolate")
    parts = Parts(AttentionInterpolation, {}, TransformerFlow, toy.ToyData(), asks)
    assert "requires the space attention, which TransformerFlow lacks" in (parts.misfit() or "")


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (small.SD3_MEDIUM, 2_028_328_000),
        (small.SD35_MEDIUM, 2_243_171_520),
        (small.SD35_LARGE, 8_056_627_520),
    ],
)
def test_the_real_size(config, count):
    with torch.device("meta"):
        network = SD3Transformer2DModel(**config)
        x = torch.zeros(1, 16, 128, 128)
        out = network(x, torch.zeros(1, 333, 4096), torch.zeros(1, 2048), torch.zeros(1)).sample
    assert out.shape == x.shape
    assert sum(p.numel() for p in network.parameters()) == count


def test_an_absent_checkpoint_names_the_command_that_fetches_it(folders, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = "stabilityai/stable-diffusion-3.5-large"
    with pytest.raises(MissingWeights, match=f"hf download {name}"):
        TransformerFlow(path=name)
    with pytest.raises(MissingWeights, match="T5EncoderModel"):
        TransformerFlow(path=folders["sd3_medium"], t5=True)
