"""AID: interpolation between two prompts inside the attention layers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from scipy.stats import beta as beta_law
from torch import Tensor

from latentbench.linear import slerp
from latentbench.models.base import AttentionCall
from latentbench.sampling import Intervention, Step
from latentbench.types import Space
from methods.lerp import LinearInterpolation


class InterpolatedAttention(Intervention):
    """Replaces every attention layer of the conditional branch by a mix of the end frames'.

    With t the frame's coefficient, Q, K, V its own and K_0, V_0, K_1, V_1 those of the ends:
    inner: A(Q, (1-t) K_0 + t K_1, (1-t) V_0 + t V_1); outer: (1-t) A(Q, K_0, V_0) +
    t A(Q, K_1, V_1); fused: the frame's own K, V stand before these along the tokens.

    Args:
        mode: "inner" or "outer".
        fused: concatenate the frame's own keys and values.
        t: coefficients of the frames, first 0 and last 1.
        warmup: share of the steps in which it acts.
    """

    def __init__(
        self, mode: Literal["inner", "outer"], fused: bool, t: Float[Tensor, " f"], warmup: float
    ) -> None:
        self.mode, self.fused, self.t, self.window = mode, fused, t, (0.0, warmup)

    def attention(self, step: Step, call: AttentionCall) -> Tensor:
        """Return plain attention in the other branches, interpolated in "condition"."""
        branch = step.branches.index("condition")
        b = len(call.query) // len(step.branches)
        own = slice(branch * b, (branch + 1) * b)
        q, k, v = (
            x[own].unflatten(0, (-1, len(self.t))) for x in (call.query, call.key, call.value)
        )
        mixed = self._mix(call, q, k, v)
        if len(step.branches) == 1:
            return mixed
        out = call.attend()
        return torch.cat([out[: own.start], mixed, out[own.stop :]])

    def _mix(self, call: AttentionCall, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the rows' outputs from ``[path, frame, heads, tokens, width]``."""
        t = self.t.to(q).reshape(1, -1, 1, 1, 1)
        k0, k1 = k[:, :1].expand_as(k), k[:, -1:].expand_as(k)
        v0, v1 = v[:, :1].expand_as(v), v[:, -1:].expand_as(v)

        def attend(key: Tensor, value: Tensor) -> Tensor:
            if self.fused:
                key, value = torch.cat([k, key], -2), torch.cat([v, value], -2)
            return call.attend(q.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))

        if self.mode == "inner":
            return attend((1 - t) * k0 + t * k1, (1 - t) * v0 + t * v1)
        w = t.expand(len(q), -1, 1, 1, 1).flatten(0, 1)
        return (1 - w) * attend(k0, v0) + w * attend(k1, v1)


class AttentionInterpolation(LinearInterpolation):
    """Frames between two prompts, with attention interpolated between the end frames.

    Source: "AID: Attention Interpolation of Text-to-Image Diffusion". Frame i has coefficient
    t_i = BetaPPF(i / (n - 1)); noise is slerped, prompt embeddings are lerped, and the
    unconditional branch keeps its own attention. All frames of all paths share one batch, where
    the original recomputes both ends for every frame. Deviation: the spherical path is over the
    whole noise, not per row of pixels.

    Args:
        mode: "inner" (AID-I) or "outer" (AID-O).
        fused: concatenate each frame's own keys and values.
        warmup: share of the steps with interpolated attention.
        alpha: first parameter of the Beta law of coefficients; 1, 1 is uniform.
        beta: second parameter.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.

    Example:
        >>> path = AttentionInterpolation(mode="outer")  # path.interpolate(a, b, steps=7)
    """

    paper = "AID: Attention Interpolation of Text-to-Image Diffusion, section 4"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "interpolate": frozenset({Space.NOISE, Space.TEXT, Space.ATTENTION})
    }
    needs: ClassVar[Mapping[str, frozenset[str]]] = {"interpolate": frozenset({"prompts"})}

    def __init__(
        self,
        *,
        mode: Literal["inner", "outer"] = "outer",
        fused: bool = True,
        warmup: float = 0.5,
        alpha: float = 1.0,
        beta: float = 1.0,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> None:
        super().__init__(steps=steps, guidance=guidance)
        self.mode: Literal["inner", "outer"] = mode
        self.fused, self.warmup = fused, warmup
        self.alpha, self.beta = alpha, beta

    def coefficients(self, frames: int) -> Float[Tensor, " t"]:
        """Return t_i, quantiles of the Beta law; 0 and 1 at the ends."""
        uniform = torch.linspace(0, 1, frames, dtype=torch.float64)
        return torch.as_tensor(beta_law.ppf(uniform.numpy(), self.alpha, self.beta)).float()

    def mix(self, a: Tensor, b: Tensor, w: Float[Tensor, " t"]) -> Float[Tensor, "b t ..."]:
        """Return the arc between two noises."""
        return slerp(a, b, w)

    def interventions(self, w: Float[Tensor, " t"]) -> Sequence[Intervention]:
        """Return the interpolated attention of these frames."""
        return [InterpolatedAttention(self.mode, self.fused, w, self.warmup)]
