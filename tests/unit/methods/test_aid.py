"""Attention interpolation."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import beta as beta_law

from latentbench.cache import Cache
from latentbench.errors import BadInput, HookNeverFired
from latentbench.model import AttentionCall
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.parameterization import Grid
from latentbench.sampling.loop import Intervention, Step
from latentbench.streams import Streams
from latentbench.types import Endpoint
from methods.generation.plain import PlainSampling
from methods.interpolation.aid import AttentionInterpolation, InterpolatedAttention, fit_law
from methods.interpolation.slerp import SphericalInterpolation

IDS = ("0", "1")
PROMPTS = ("a face with hat", "smile"), ("glasses", "a face")


def attached(editor, model):
    editor.attach(model, Streams(0), Cache(None))
    return editor


def ends(model) -> tuple[Endpoint, Endpoint]:
    a, b = (Streams(k).normal("prior", IDS, model.latent_shape) for k in range(2))
    return Endpoint(IDS, a, PROMPTS[0]), Endpoint(IDS, b, PROMPTS[1])


def calls(rows: int) -> AttentionCall:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, rows, 2, 5, 4, generator=generator)
    return AttentionCall("x.attn1", False, q, k, v, 0.5, lambda c: (c, c), q[:, 0])


def step_of(*branches: str) -> Step:
    grid = Grid(torch.tensor([0]), torch.tensor([0.5, 1.0]), torch.tensor([0.5, 0.0]))
    return Step(0, 0, 1, 1, 0, branches, grid, lambda x, level: (x, x))


@pytest.mark.parametrize("mode", ["inner", "outer"])
@pytest.mark.parametrize("fused", [True, False])
def test_the_equations_row_by_row(mode, fused):
    t = torch.tensor([[0.0, 0.3, 1.0], [0.0, 0.6, 1.0]])
    call = calls(2 * 2 * 3)  # branches x paths x frames
    change = InterpolatedAttention(mode, fused, t, 1.0)
    found = change.attention(step_of("null", "condition"), call)
    plain = call.attend()
    assert torch.equal(found[:6], plain[:6])  # the null branch keeps its own attention

    def attend(row: int, key, value):
        q, k, v = (x[row] for x in (call.query, call.key, call.value))
        if fused:
            key, value = torch.cat([k, key], 1), torch.cat([v, value], 1)
        return (q @ key.mT * 0.5).softmax(-1) @ value

    for path in range(2):
        first, last = 6 + 3 * path, 6 + 3 * path + 2
        (k0, v0), (k1, v1) = ((call.key[r], call.value[r]) for r in (first, last))
        for frame, w in enumerate(t[path]):
            row = first + frame
            if mode == "inner":
                expected = attend(row, (1 - w) * k0 + w * k1, (1 - w) * v0 + w * v1)
            else:
                expected = (1 - w) * attend(row, k0, v0) + w * attend(row, k1, v1)
            torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("mode", ["inner", "outer"])
@pytest.mark.parametrize("fused", [True, False])
def test_ends_are_plain_generation(latent, mode, fused):
    """Duplicated keys leave softmax attention as it was."""
    a, b = ends(latent)
    editor = attached(AttentionInterpolation(mode=mode, fused=fused, warmup=1.0), latent)
    frames = editor.interpolate(a, b, 4)
    for frame, end, seed in ((0, a, 0), (-1, b, 1)):
        plain = PlainSampling()
        plain.attach(latent, Streams(seed), Cache(None))
        expected = plain.generate(IDS, end.prompts)
        torch.testing.assert_close(frames[:, frame], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_every_setting_changes_the_inner_frames(latent):
    a, b = ends(latent)
    settings = [
        {}, {"mode": "inner"}, {"fused": False}, {"warmup": 1.0}, {"guidance": 1.0},
        {"guide": "hat smile"}, {"explore": 5}, {"negative": "glasses"},
    ]  # fmt: skip
    frames = [
        attached(AttentionInterpolation(**s), latent).interpolate(a, b, 3)[:, 1] for s in settings
    ]
    frames.append(attached(SphericalInterpolation(), latent).interpolate(a, b, 3)[:, 1])
    apart = torch.stack(frames).flatten(1).double()
    distances = torch.cdist(apart, apart) + 9 * torch.eye(len(frames))
    assert float(distances.min()) > 1e-3


def test_without_warmup_it_is_slerp(latent):
    a, b = ends(latent)
    off = attached(AttentionInterpolation(warmup=0.0), latent).interpolate(a, b, 3)
    assert torch.equal(off, attached(SphericalInterpolation(), latent).interpolate(a, b, 3))


def test_warmup_counts_steps_from_the_noisy_end(latent):
    fired = []

    class Spy(InterpolatedAttention):
        def attention(self, step, call):
            fired.append(step.index)
            return super().attention(step, call)

    class Spied(AttentionInterpolation):
        def interventions(self, w) -> list[Intervention]:
            return [Spy(self.mode, self.fused, w, self.warmup)]

    attached(Spied(warmup=0.4), latent).interpolate(*ends(latent), 3)
    assert sorted(set(fired)) == [0, 1]
    assert len(fired) == 2 * len(latent.attention_layers())


@pytest.mark.parametrize(
    ("share", "n", "steps"), [(0.5, 5, 2), (0.3, 10, 3), (0.58, 50, 29), (1.0, 7, 7)]
)
def test_warmup_is_a_floor(share, n, steps):
    """As in the authors' code, `i < int(n * share)`, but for the rounding of 0.58 x 50."""
    change = InterpolatedAttention("outer", True, torch.tensor([[0.0, 1.0]]), share)
    at = step_of("condition")
    assert sum(change.active(replace(at, index=i, n=n)) for i in range(n)) == steps


def test_coefficients_are_quantiles_of_the_beta_law():
    a = b = Endpoint(IDS)
    uniform = AttentionInterpolation().coefficients(a, b, 5)
    torch.testing.assert_close(uniform, torch.linspace(0, 1, 5).expand(2, 5))
    found = AttentionInterpolation(alpha=25.0, beta=25.0).coefficients(a, b, 7)
    published = [0, 0.432, 0.469, 0.5, 0.531, 0.568, 1]
    assert found[1].tolist() == pytest.approx(published, abs=1e-3)


def test_a_fitted_law_places_frames_equally_far_apart():
    """A path of brightness that follows a known law: its quantiles are the fitted coefficients."""
    places = torch.linspace(0, 1, 9, dtype=torch.float64)
    way = torch.as_tensor(beta_law.cdf(places.numpy(), 4.0, 2.0))
    frames = (way[:, None, None, None] - 0.5).expand(-1, 3, 8, 8).float()
    assert fit_law(frames) == pytest.approx((4.0, 2.0), rel=0.05)
    assert fit_law(frames[:1].expand(9, -1, -1, -1)) == (1.0, 1.0)
    jump = (places > 0.8).double()[:, None, None, None].expand(-1, 3, 8, 8).float()
    assert beta_law.ppf(0.5, *fit_law(jump)) == pytest.approx(0.81, abs=0.06)


def test_exploring_spreads_the_frames_of_each_path_on_its_own(latent):
    a, b = ends(latent)
    editor = attached(AttentionInterpolation(explore=7), latent)
    laws = editor.coefficients(a, b, 5)
    assert bool((laws.diff() > 0).all()) and laws[:, 0].tolist() == [0, 0]
    assert laws[:, -1].tolist() == [1, 1]
    assert not torch.equal(laws[0], laws[1])
    alone = editor.coefficients(*(Endpoint(IDS[1:], e.noise[1:], e.prompts[1:]) for e in (a, b)), 5)
    torch.testing.assert_close(alone[0], laws[1], rtol=1e-2, atol=1e-3)


def test_a_guide_replaces_the_inner_prompts_and_leaves_the_ends(latent):
    a, b = ends(latent)
    plain = attached(AttentionInterpolation(), latent)
    guided = attached(AttentionInterpolation(guide="smile"), latent)
    w = plain.coefficients(a, b, 3)
    between = plain.latent(a), plain.latent(b), w
    rows = guided.condition(*between).tensors["encoder_hidden_states"]
    lerped = plain.condition(*between).tensors["encoder_hidden_states"]
    guide = latent.condition(("smile",), 1).tensors["encoder_hidden_states"][0]
    for row in range(6):
        assert torch.equal(rows[row], guide if row % 3 == 1 else lerped[row])
    frames = guided.interpolate(a, b, 3)
    torch.testing.assert_close(
        frames[:, ::2], plain.interpolate(a, b, 3)[:, ::2], rtol=1e-3, atol=1e-3
    )


def test_a_guide_without_fusion_is_refused():
    with pytest.raises(BadInput, match="guide needs fused=true"):
        AttentionInterpolation(guide="smile", fused=False)


def test_a_model_without_attention_is_an_error(zoo):
    bare = PixelDiffusion(path=str(zoo / "pixel_bare"), steps=5)
    a, b = ends(bare)
    with pytest.raises(HookNeverFired):
        attached(AttentionInterpolation(), bare).interpolate(
            Endpoint(IDS, a.noise), Endpoint(IDS, b.noise), 3
        )
