"""Plug-and-Play, and Direct Inversion under it."""

from dataclasses import replace

import pytest
import real_configs as real
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.model import AttentionCall
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.parameterization import Grid
from latentbench.sampling.loop import Step
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.plug_and_play import PlugAndPlay
from methods.inversion.ddim_inversion import DDIMInversion

SOURCES, TARGETS = ("a face with hat", "a face"), ("a face with smile", "a face with glasses")
ONE = torch.ones(1)


def attached(model, cls=PlugAndPlay, **settings):
    editor = cls(**{"steps": 3} | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def batch_of(model) -> Batch:
    return Batch(("0", "1"), toy.ToyData(model.image_size).batch("test", [0, 1]).images, SOURCES)


def edited(model, strengths=ONE, targets=TARGETS, **settings):
    edit = Edit("x", target_prompts=targets)
    return attached(model, **settings).edit(batch_of(model), edit, strengths)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_equal_prompts_at_equal_guidance_give_the_source(latent):
    found = edited(latent, targets=SOURCES, tau_f=1.0, tau_attention=1.0, guidance=1.0)
    editor = attached(latent)
    close(found[:, 0], editor.decode(editor.invert(batch_of(latent))))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("source", ["sampled", "stored"])
def test_strength_0_is_the_source_and_1_does_not_depend_on_its_neighbours(latent, source, guidance):
    """With and without guidance of the source: its null branch is the target's as well."""
    settings = {"source": source, "source_guidance": guidance}
    editor = attached(latent, **settings)
    found = edited(latent, torch.tensor([0.0, 0.5, 1.0]), **settings)
    close(found[:, 0], editor.decode(editor.invert(batch_of(latent))))
    close(found[:, 2:], edited(latent, **settings))


def test_without_injection_it_is_a_prompt_swap(latent):
    swap = attached(latent, DDIMInversion)
    expected = swap.edit(batch_of(latent), Edit("x", target_prompts=TARGETS), ONE)
    close(edited(latent, tau_f=0.0, tau_attention=0.0), expected)
    for shares in ({"tau_f": 0.0}, {"tau_attention": 0.0}):
        assert float((edited(latent, **shares) - expected).abs().max()) > 1e-3


def test_both_branches_get_what_the_source_has(latent):
    """Features whole; of attention the queries and keys, under the target's own values."""
    editor = attached(latent)
    coupling = editor.couple(3, SOURCES, TARGETS, torch.ones(2))
    (maps, memory), (features, attention) = coupling.source, coupling.target
    layer, own = editor.layers()
    assert features.layers == (layer,) == ("up_blocks.0.resnets.0:residual",)
    assert own == [a for a in latent.attention_layers() if a.startswith("up") and "attn1" in a]
    grid = Grid(torch.tensor([0]), torch.tensor([0.5, 1.0]), torch.tensor([0.5, 0.0]))
    guided = Step(0, 0, 1, 1, 0, ("null", "condition"), grid, lambda x, level: (x, x))
    source = torch.randn(2, 3, 4, 4)
    maps.maps = {"condition": source}
    h = features.features(guided, layer, torch.zeros(2, 4, 3, 4, 4))
    memory.queries[own[0]], memory.keys[own[0]] = torch.randn(2, 2, 1, 5, 6)
    value = torch.randn(8, 1, 5, 6)
    call = AttentionCall(own[0], False, value, value, value, 0.4, lambda c: (c, c), value[:, 0])
    out = attention.attention(guided, call).unflatten(0, (2, 4))
    scores = memory.queries[own[0]] @ memory.keys[own[0]].transpose(-1, -2) * 0.4
    for branch in range(2):
        assert torch.equal(h[branch], source.repeat_interleave(2, 0))
        theirs = value.unflatten(0, (2, 4))[branch]
        close(out[branch], scores.softmax(-1).repeat_interleave(2, 0) @ theirs)
    assert attention.attention(guided, replace(call, layer="mid_block")) is None


def test_shares_count_steps(latent):
    before = latent.evaluations.forward
    settings = {"tau_f": 0.4, "tau_attention": 0.7}
    attached(latent, **settings).edit(
        batch_of(latent), Edit("x", target_prompts=TARGETS), torch.tensor([0.5, 1.0])
    )
    n, coupled, b, s = 3, 2, 2, 2
    assert latent.evaluations.forward - before == b * (n + coupled + 2 * n * s)


def test_the_published_layers_of_stable_diffusion(tmp_path):
    """On SD 1.5's own config: the layers that the authors' code for diffusers names."""
    model = LatentDiffusion(path=real.save_sd(tmp_path / "sd15", "sd15"), steps=2)
    layer, attention = attached(model).layers()
    assert layer == "up_blocks.1.resnets.1:residual"
    assert [a.partition(".transformer")[0] for a in attention] == [
        f"up_blocks.{block}.attentions.{k}"
        for block, numbers in {1: (1,), 2: (0, 1), 3: (0, 1)}.items()
        for k in numbers
    ]
    assert torch.isfinite(edited(model, steps=2)).all()


def test_a_layer_behind_all_self_attention_gives_features_alone(latent, monkeypatch):
    """Or is refused by name, where attention is to be taken over as well."""
    known = [a for a in latent.attention_layers() if not a.startswith("up_blocks.1")]
    monkeypatch.setattr(latent, "attention_layers", lambda: tuple(known))
    last = {"feature_layer": "up_blocks.1.resnets.1"}
    with pytest.raises(BadInput, match=r"method.feature_layer=up_blocks.1.resnets.1 lies behind"):
        edited(latent, **last)
    found = edited(latent, tau_attention=0.0, **last)
    assert float((found - edited(latent, tau_attention=0.0, tau_f=0.0)).abs().max()) > 1e-3


def test_what_is_not_there_is_refused(latent):
    with pytest.raises(BadInput, match=r"unknown method.feature_layer 'up_blocks.9.resnets.0'"):
        edited(latent, feature_layer="up_blocks.9.resnets.0")
    with pytest.raises(BadInput, match="takes nothing from its source"):
        PlugAndPlay(tau_f=0.1, tau_attention=0.1).check(toy.ToyData(), 5, [1.0])
