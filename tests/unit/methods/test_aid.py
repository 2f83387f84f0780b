"""Attention interpolation."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.errors import HookNeverFired
from latentbench.models.base import AttentionCall
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.parameterization import Grid
from latentbench.sampling import Intervention, Step
from latentbench.streams import Streams
from latentbench.types import Endpoint
from methods.aid import AttentionInterpolation, InterpolatedAttention
from methods.plain import PlainSampling
from methods.slerp import SphericalInterpolation

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
    t = torch.tensor([0.0, 0.3, 1.0])
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
        for frame, w in enumerate(t):
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


def test_every_setting_changes_the_inner_frames(latent):
    a, b = ends(latent)
    settings = [{}, {"mode": "inner"}, {"fused": False}, {"warmup": 1.0}, {"guidance": 1.0}]
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


def test_coefficients_are_quantiles_of_the_beta_law():
    uniform = AttentionInterpolation().coefficients(5)
    torch.testing.assert_close(uniform, torch.linspace(0, 1, 5))
    found = AttentionInterpolation(alpha=25.0, beta=25.0).coefficients(7)
    published = [0, 0.432, 0.469, 0.5, 0.531, 0.568, 1]
    assert found.tolist() == pytest.approx(published, abs=1e-3)


def test_a_model_without_attention_is_an_error(zoo):
    bare = PixelDiffusion(path=str(zoo / "pixel_bare"), steps=5)
    a, b = ends(bare)
    with pytest.raises(HookNeverFired):
        attached(AttentionInterpolation(), bare).interpolate(
            Endpoint(IDS, a.noise), Endpoint(IDS, b.noise), 3
        )
