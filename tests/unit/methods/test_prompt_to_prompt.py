"""Prompt-to-Prompt, and Direct Inversion under it."""

import pytest
import torch
import transformers_toy as small

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import Batch, Edit, Space
from methods.editing.coupled import Memory
from methods.editing.prompt_to_prompt import PromptToPrompt, WordMasks
from methods.inversion.ddim_inversion import DDIMInversion

SOURCES, TARGETS = ("a face with hat", "a face"), ("a face with smile", "a face with glasses")
ONE = torch.ones(1)
STEPS = 3


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    path = small.save_sd3(tmp_path_factory.mktemp("sd3"), small.SD35_MEDIUM)
    return TransformerFlow(path=path, steps=5, guidance=3.0)


def attached(model, cls=PromptToPrompt, **settings):
    editor = cls(**{"steps": STEPS} | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def batch_of(model, prompts=SOURCES) -> Batch:
    images = toy.ToyData(model.image_size).batch("test", range(len(prompts))).images
    return Batch(tuple(map(str, range(len(prompts)))), images, prompts)


def edited(model, targets=TARGETS, strengths=ONE, sources=SOURCES, **settings):
    edit = Edit("x", target_prompts=targets)
    return attached(model, **settings).edit(batch_of(model, sources), edit, strengths)


@pytest.fixture(params=["latent", "sd3"])
def model(request):
    return request.getfixturevalue(request.param)


def close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=atol)


@pytest.mark.parametrize("mode", ["replace", "refine"])
def test_equal_prompts_at_equal_guidance_give_the_source(model, mode):
    """Whatever the shares are, and however far the source drifts."""
    settings = {"mode": mode, "guidance": 3.0, "source_guidance": 3.0}
    found = edited(model, targets=SOURCES, cross_replace=1.0, self_replace=1.0, **settings)
    editor = attached(model, **settings)
    close(found[:, 0], editor.decode(editor.invert(batch_of(model))))


def test_strength_0_is_the_source_and_1_does_not_depend_on_its_neighbours(model):
    for source in ("sampled", "stored"):
        editor = attached(model, source=source)
        found = edited(model, strengths=torch.tensor([0.0, 0.5, 1.0]), source=source)
        close(found[:, 0], editor.decode(editor.invert(batch_of(model))))
        close(found[:, 2:], edited(model, source=source))


def test_without_exchange_it_is_a_prompt_swap(latent):
    found = edited(latent, cross_replace=0.0, self_replace=0.0)
    swap = attached(latent, DDIMInversion)
    close(found, swap.edit(batch_of(latent), Edit("x", target_prompts=TARGETS), ONE))
    assert float((found - edited(latent)).abs().amax()) > 1e-2


def test_a_stored_source_is_the_image_itself(latent):
    batch = batch_of(latent)
    editor = attached(latent, source="stored")
    close(editor.decode(editor.invert(batch)), latent.decode(latent.encode(batch.images)))
    assert torch.equal(edited(latent, source="stored", cross_replace=0.0, self_replace=0.0),
                       edited(latent, cross_replace=0.0, self_replace=0.0))  # fmt: skip


def test_maps_are_the_sources(latent):
    """With both kinds taken over in the first step, that step is attention under its maps."""
    seen = {}
    editor = attached(latent, cross_replace=1.0, self_replace=1.0, self_pixels=10**4)
    coupling = editor.couple(STEPS, SOURCES[:1], TARGETS[:1], ONE)
    (memory,), (control,) = coupling.source, coupling.target

    class Spied(type(control)):
        def attention(self, step, call):
            out = super().attention(step, call)
            q, k = memory.queries[call.layer], memory.keys[call.layer]
            maps = (q @ k.transpose(-1, -2) * call.scale).softmax(-1)
            seen[call.layer] = float((out[1:] - maps @ call.value[1:]).abs().max())
            assert torch.equal(out[0], call.attend()[0])
            return out

    control.__class__ = Spied
    x, null = torch.randn(1, *latent.latent_shape), latent.condition(None, 1)
    terms = [
        guided(latent.condition(p, 1), null, w) for p, w in ((SOURCES[:1], 1), (TARGETS[:1], 3.0))
    ]
    for told, interventions in zip(terms, (coupling.source, coupling.target), strict=True):
        generate(latent, x, told, stop=1, interventions=interventions)
    assert set(seen) == set(latent.attention_layers()) and max(seen.values()) < 1e-5


def test_shares_count_steps_and_large_maps_are_left_alone(latent):
    before = latent.evaluations.forward
    editor = attached(latent, cross_replace=0.4, self_replace=0.0)
    editor.edit(batch_of(latent), Edit("x", target_prompts=TARGETS), torch.tensor([0.5, 1.0]))
    coupled, b, s = 1, 2, 2
    assert latent.evaluations.forward - before == b * (STEPS + coupled + 2 * STEPS * s)
    settings = {"cross_replace": 0.0, "self_replace": 1.0}
    small_maps, all_maps = (edited(latent, self_pixels=p, **settings) for p in (16, 64))
    assert float((small_maps - all_maps).abs().amax()) > 1e-4


@pytest.mark.slow
def test_reweighting_moves_the_image_further_the_larger_the_factor(latent):
    images = [edited(latent, reweight=c, cross_replace=1.0) for c in (1.0, 2.0, 4.0)]
    plain = images[0]
    moved = [(image - plain).abs().mean() for image in images]
    assert 0 == moved[0] < moved[1] < moved[2]
    named = edited(latent, reweight=2.0, words=["smile", "glasses"], cross_replace=1.0)
    assert torch.equal(named[0], images[1][0])


def test_outside_the_mask_a_blended_target_is_the_source(model, monkeypatch, unchecked):
    """A stored source: the clean latents of the image."""
    half = torch.zeros(model.latent_shape[-1], model.latent_shape[-1], dtype=torch.bool)
    half[:, : half.shape[1] // 2] = True
    monkeypatch.setattr(WordMasks, "mask", lambda self, side: half.expand(2, 1, -1, -1))
    monkeypatch.setattr(model, "decode", lambda z: z)
    batch = batch_of(model)
    editor = attached(model, source="stored", local_blend=True)
    z = editor.edit(batch, Edit("x", target_prompts=TARGETS), ONE)[:, 0]
    x0 = model.encode(batch.images)
    assert torch.equal(z[..., ~half], x0[..., ~half])
    assert float((z - x0)[..., half].abs().mean()) > 1e-2


def test_masks_are_where_words_maps_are_large_in_either_image():
    maps = torch.zeros(1, 3, 4, 4)
    maps[0, 0, 0, 0] = maps[0, 1, 3, 3] = maps[0, 2, 0, 3] = 1
    none = torch.zeros(1, 1)
    masks = WordMasks(Memory(), none, none, n=5, start=0.2, threshold=0.3)
    masks.sums = {4: maps, 8: torch.rand(1, 3, 8, 8)}
    found = masks.mask(16)[0]
    corner = torch.zeros(16, 16, dtype=torch.bool)
    corner[:8, :8] = True
    assert torch.equal(found[0], corner | corner.flip(0, 1))
    assert torch.equal(found[1], corner | corner.flip(1))


def test_word_masks_read_the_words_maps(latent):
    found = edited(latent, local_blend=True, source="stored", blend_threshold=0.9)
    assert not torch.equal(found, edited(latent, source="stored"))
    words = ["hat", "smile", "glasses"]
    settings = {"local_blend": True, "source": "stored", "blend_threshold": 0.9, "words": words}
    same = edited(latent, **settings)
    assert torch.equal(found[:1], same[:1])


def test_what_cannot_be_aligned_is_refused(latent):
    with pytest.raises(BadInput, match="mode=replace needs prompts with as many words"):
        edited(latent, mode="replace")
    with pytest.raises(BadInput, match=r"has a word of method.words=\['dog'\]"):
        edited(latent, words=["dog"])
    with pytest.raises(BadInput, match="takes nothing from its source in any of the 2"):
        PromptToPrompt(cross_replace=0.4, self_replace=0.4).check(toy.ToyData(), 2, [1.0])


def test_the_code_is_x_t_and_of_a_stored_source_the_clean_latents_too(latent):
    batch = batch_of(latent)
    levels = ddim_trajectory(
        latent, batch, Cache(None), steps=STEPS, condition=latent.condition(batch.prompts, 2)
    )
    sampled, stored = (
        attached(latent, source=s).invert(batch).parts for s in ("sampled", "stored")
    )
    assert torch.equal(sampled[Space.NOISE], levels[:, 0]) and Space.VAE not in sampled
    assert torch.equal(stored[Space.NOISE], levels[:, 0])
    assert torch.equal(stored[Space.VAE], levels[:, -1])
