"""MAD: one window is plain sampling, many share attention, and what does not fit is refused."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import real_configs as real
import torch
from torch.nn.functional import scaled_dot_product_attention as attention

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.model import AttentionCall
from latentbench.models.dit import DiT
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.semantic import SemanticDiffusion
from latentbench.models.stable_diffusion_xl import StableDiffusionXL
from latentbench.parameterization import Grid
from latentbench.sampling.loop import Step
from latentbench.streams import Streams
from methods.generation.merge_split_panorama import FusedViews, MergedAttention, MergeSplitPanorama
from methods.generation.plain import PlainSampling
from methods.generation.views import Views

IDS, PROMPTS, WIDE = ("a", "b"), ("hat", "smile"), 32
VIEWS = Views(height=4, width=8, window=4, stride=2)
GRID = Grid(torch.tensor([9, 5]), torch.tensor([0.1, 0.8, 1.0]), torch.tensor([0.99, 0.6, 0.0]))
STEP = Step(0, 0, 1, 2, 9, ("condition",), GRID, lambda x, level: (x, x))


def attached(model, cls=MergeSplitPanorama, **settings):
    editor = cls(**settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def pictures(model, prompts=PROMPTS, width=WIDE, **settings):
    return attached(model, **settings).panorama(IDS, prompts, width)


@pytest.mark.parametrize("mode", ["mad", "multidiffusion", "independent", "direct"])
def test_one_window_is_plain_sampling(latent, pixel, mode):
    for model, prompts in ((latent, PROMPTS), (pixel, None)):
        found = pictures(model, prompts, model.image_size, mode=mode, tau=1.0)
        plain = attached(model, PlainSampling).generate(IDS, prompts)
        torch.testing.assert_close(found, plain, rtol=0, atol=1e-5)


def test_modes_differ_on_a_canvas_and_leave_the_network_as_it_was(latent):
    before = {n: m.processor for n, m in latent.attention_modules().items()}
    found = [pictures(latent, mode=m) for m in ("mad", "multidiffusion", "independent", "direct")]
    assert all(one.shape == (2, 3, 16, WIDE) for one in found)
    for k, one in enumerate(found):
        assert all(float((one - other).abs().max()) > 1e-3 for other in found[:k])
    assert all(m.processor is before[n] for n, m in latent.attention_modules().items())


def test_a_canvas_without_windows_need_not_be_covered_by_them(latent):
    """18 cells are no window of 8 and a number of strides of 4."""
    settings = {"window": 8, "stride": 4}
    with pytest.raises(BadInput, match="do not cover"):
        pictures(latent, width=36, **settings)
    assert pictures(latent, width=36, mode="direct", **settings).shape == (2, 3, 16, 36)


def test_without_merged_steps_and_merged_prompts_it_is_multidiffusion(latent):
    found = pictures(latent, tau=0.0, cross="views")
    assert torch.equal(found, pictures(latent, mode="multidiffusion"))
    assert not torch.equal(pictures(latent, tau=0.0), found)  # as in the authors' code


def test_independent_windows_know_nothing_of_each_other(pixel):
    """The right half of a canvas is the same whatever the left half starts from."""
    editor = attached(pixel, mode="independent")
    draw = editor.streams.normal

    def other(name, ids, shape, device="cpu"):
        noise = draw(name, ids, shape, device)
        noise[..., :16] *= -1
        return noise

    before = editor.panorama(IDS, None, WIDE)
    editor.streams = SimpleNamespace(normal=other)
    after = editor.panorama(IDS, None, WIDE)
    assert torch.equal(before[..., 16:], after[..., 16:])
    assert not torch.equal(before[..., :16], after[..., :16])


def call(cross=False, layer="mid_block.attentions.0", rows=6, side=4):
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(rows, 2, side * side, 8, generator=draw) for _ in range(3))
    k, v = (k[:, :, :5], v[:, :, :5]) if cross else (k, v)
    return AttentionCall(layer, cross, q, k, v, 0.3, lambda c: (c, c), torch.zeros(rows, 5, 8))


def merged(rows):
    """The mean over windows of each cell of the canvas, cell by cell."""
    found = torch.zeros(len(rows) // 3, 2, 4, 8, 8)
    for one in range(len(found)):
        for y in range(4):
            for x in range(8):
                inside = [k for k in range(3) if 0 <= x - 2 * k < 4]
                seen = [rows[3 * one + k, :, 4 * y + x - 2 * k] for k in inside]
                found[one, :, y, x] = torch.stack(seen).mean(0)
    return found.flatten(2, 3)


def windows(rows):
    maps = rows.unflatten(2, (4, 8))
    parts = [maps[:, :, :, 2 * k : 2 * k + 4].flatten(2, 3) for k in range(3)]
    return torch.stack(parts, 1).flatten(0, 1)


def test_the_operator_is_attention_on_the_mean_of_the_windows():
    act = MergedAttention(VIEWS, cross=False, until=1)
    given = call()
    found = act.attention(STEP, given)
    q, k, v = (merged(x) for x in (given.query, given.key, given.value))
    expected = windows(attention(q, k, v, scale=0.3))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    own = MergedAttention(VIEWS, cross=False, until=1, merged="kv").attention(STEP, given)
    k, v = (x.repeat_interleave(3, 0) for x in (k, v))
    torch.testing.assert_close(own, attention(given.query, k, v, scale=0.3), rtol=1e-5, atol=1e-6)


def test_queries_to_the_prompt_are_merged_and_its_keys_are_one_windows():
    given = call(cross=True)
    found = MergedAttention(VIEWS, cross=True, until=1).attention(STEP, given)
    expected = attention(merged(given.query), given.key[::3], given.value[::3], scale=0.3)
    torch.testing.assert_close(found, windows(expected), rtol=1e-5, atol=1e-6)


def test_the_operator_acts_where_and_when_it_is_asked_to():
    act = MergedAttention(VIEWS, cross=False, until=2, blocks="up")
    assert act.attention(STEP, call()) is None and act.attention(STEP, call(cross=True)) is None
    assert act.attention(STEP, call(layer="up_blocks.1.attentions.0")) is not None
    assert [act.active(replace(STEP, index=k)) for k in range(3)] == [True, True, False]
    small = act.attention(STEP, call(layer="up_blocks.0.attentions.0", side=2))
    assert small.shape == (6, 2, 4, 8)


def test_entropy_makes_logits_as_much_larger_as_there_are_tokens():
    given = call()
    sharper = MergedAttention(VIEWS, cross=False, until=1, logit_scale="entropy")
    scaled = replace(given, query=given.query * math.sqrt(math.log(32) / math.log(16)))
    plain = MergedAttention(VIEWS, cross=False, until=1)
    torch.testing.assert_close(sharper.attention(STEP, given), plain.attention(STEP, scaled))


def test_blocks_change_what_is_merged(latent):
    found = [pictures(latent, blocks=b, cross="views") for b in ("all", "down", "mid", "up")]
    for k, one in enumerate(found):
        assert all(not torch.equal(one, other) for other in found[:k])


def test_fusion_leaves_windows_that_agree_and_takes_the_mean_of_others():
    canvas = torch.rand(2, 3, 4, 8)
    fused = FusedViews(VIEWS).after_step(STEP, VIEWS.cut(canvas))
    torch.testing.assert_close(fused, VIEWS.cut(canvas))
    odd = VIEWS.cut(canvas)
    odd[0] += 1  # the first window of the first canvas shares half of its cells with the second
    fused = FusedViews(VIEWS).after_step(STEP, odd) - VIEWS.cut(canvas)
    torch.testing.assert_close(fused[1, :, :, :2], torch.full((3, 4, 2), 0.5))
    torch.testing.assert_close(fused[0, :, :, :2], torch.ones(3, 4, 2))


def test_a_stochastic_sampler_draws_its_noise_on_the_canvas(latent):
    """Where windows overlap they get one noise: what they have in common stays as varied."""
    editor = attached(latent, eta=1.0)
    drawn, draw = [], editor.streams.normal

    def noted(name, ids, shape, device="cpu"):
        drawn.append((name, tuple(shape)))
        return draw(name, ids, shape, device)

    editor.streams = SimpleNamespace(normal=noted)
    found = editor.panorama(IDS, PROMPTS, WIDE)
    assert {shape for _, shape in drawn} == {(4, 8, 16)} and len({n for n, _ in drawn}) > 2
    assert not torch.equal(found, pictures(latent))


@pytest.mark.parametrize(
    ("width", "settings", "words"),
    [
        (36, {"stride": 4}, "windows of 8 cells every 4 do not cover a canvas that is 18 cells"),
        (33, {}, "33 pixels wide is no whole number"),
        (32, {"stride": 3}, "method.stride is 3 cells"),
        (32, {"window": 5}, "method.window is 5 cells"),
        (32, {"stride": 16}, "a stride of at most 8"),
        (48, {"mode": "independent", "window": 6}, "do not cover a canvas that is 8 cells high"),
        (33, {"mode": "direct"}, "33 pixels wide is no whole number"),
        (34, {"mode": "direct"}, "is 17 latent cells, and the U-Net sees 2 of them as one"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_the_first_step(latent, width, settings, words):
    editor = attached(latent, **settings)
    before = latent.evaluations.forward
    with pytest.raises(BadInput, match=words):
        editor.panorama(IDS, PROMPTS, width)
    assert latent.evaluations.forward == before


def test_transformers_and_models_of_one_whole_image_are_refused_with_the_reason():
    assert "positions" in MergeSplitPanorama.misfit(DiT, {})
    assert "one whole image" in MergeSplitPanorama.misfit(SemanticDiffusion, {})
    assert MergeSplitPanorama.misfit(LatentDiffusion, {}) is None


def test_it_runs_on_pipelines_of_stable_diffusion(tmp_path):
    sd = LatentDiffusion(path=real.save_sd(tmp_path / "sd", "sd15"), steps=2, guidance=7.5)
    sdxl = StableDiffusionXL(path=real.save_sdxl(tmp_path / "sdxl"), steps=2)
    for model in (sd, sdxl):
        width = 2 * model.image_size
        found = attached(model, tau=0.5).panorama(IDS[:1], PROMPTS[:1], width)
        assert found.shape == (1, 3, model.image_size, width) and bool(found.isfinite().all())
