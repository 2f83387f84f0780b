"""AID: interpolation between two prompts inside the attention layers."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import least_squares
from scipy.stats import beta as beta_law
from torch import Tensor

from latentbench.bounds import Guidance, Name, Share, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.model import AttentionCall, Condition, Convention
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import Intervention, Step
from latentbench.types import Capability, Endpoint, Latent, Space
from methods.interpolation.slerp import SphericalInterpolation

LARGEST = 50.0  # alpha and beta of a fitted law lie between its inverse and this


class InterpolatedAttention(Intervention):
    """Replaces every attention layer of the conditional branch by a mix of the end frames'.

    With t the frame's coefficient, Q, K, V its own and K_0, V_0, K_1, V_1 those of the ends:
    inner: A(Q, (1-t) K_0 + t K_1, (1-t) V_0 + t V_1); outer: (1-t) A(Q, K_0, V_0) +
    t A(Q, K_1, V_1); fused: the frame's own K, V come before these along the tokens.

    Args:
        mode: "inner" or "outer".
        fused: concatenate the frame's own keys and values.
        t: coefficients of the frames of each path, first 0 and last 1.
        warmup: share of the steps in which it acts, the first ones: floor(share x n) of n.
    """

    def __init__(
        self, mode: Literal["inner", "outer"], fused: bool, t: Float[Tensor, "b f"], warmup: float
    ) -> None:
        self.mode, self.fused, self.t, self.warmup = mode, fused, t, warmup

    def active(self, step: Step) -> bool:
        """Return whether the step is one of the first floor(warmup x n)."""
        return step.index < whole_steps(self.warmup, step.n)

    def attention(self, step: Step, call: AttentionCall) -> Tensor:
        """Return plain attention in the other branches, interpolated in "condition"."""
        branch = step.branches.index("condition")
        b = len(call.query) // len(step.branches)
        own = slice(branch * b, (branch + 1) * b)
        q, k, v = (x[own].unflatten(0, self.t.shape) for x in (call.query, call.key, call.value))
        mixed = self._mix(call, q, k, v)
        if len(step.branches) == 1:
            return mixed
        out = call.attend()
        return torch.cat([out[: own.start], mixed, out[own.stop :]])

    def _mix(self, call: AttentionCall, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the rows' outputs from ``[path, frame, heads, tokens, width]``."""
        t = self.t.to(q)[..., None, None, None]
        k0, k1 = k[:, :1].expand_as(k), k[:, -1:].expand_as(k)
        v0, v1 = v[:, :1].expand_as(v), v[:, -1:].expand_as(v)

        def attend(key: Tensor, value: Tensor) -> Tensor:
            if self.fused:
                key, value = torch.cat([k, key], -2), torch.cat([v, value], -2)
            return call.attend(q.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1))

        if self.mode == "inner":
            return attend((1 - t) * k0 + t * k1, (1 - t) * v0 + t * v1)
        w = t.flatten(0, 1)
        return (1 - w) * attend(k0, v0) + w * attend(k1, v1)


class AttentionInterpolation(SphericalInterpolation):
    """Frames between two prompts, with attention interpolated between the end frames.

    Source: "AID: Attention Interpolation of Text-to-Image Diffusion". Frame i has coefficient
    t_i = BetaPPF(i / (n - 1)); noise is slerped, prompt embeddings are lerped, and the
    unconditional branch keeps its own attention. With `guide` (PAID) every inner frame takes that
    caption in place of the lerped embedding. All frames of all paths share one batch, where the
    original recomputes both ends for every frame.

    With `explore`, each path gets a Beta law of its own: so many evenly spaced frames are made
    first, and (alpha, beta) are fitted by least squares so that the law's distribution function
    follows the share of the way that the images have come; frames are then about equally far
    apart. Deviations: the original measures that way with CLIP, explores where the gaps are widest
    and picks among the explored frames; here it is the root mean square of pixel differences, the
    exploration is even, and the frames are made again. The spherical path is over the whole noise,
    not per row of pixels.

    Args:
        mode: "inner" (AID-I) or "outer" (AID-O).
        fused: concatenate each frame's own keys and values.
        guide: caption of the inner frames (PAID); needs `fused`, without which cross-attention
            would not read it.
        warmup: share of the steps with interpolated attention.
        alpha: first parameter of the Beta law of coefficients; 1, 1 is uniform.
        beta: second parameter.
        explore: frames, ends included, from which each path's law is fitted; 0 takes alpha, beta.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.
        negative: prompt that guidance leads away from; default: the empty condition.
        convention: timestep that the network receives while a real image is inverted; see `lerp`.

    Example:
        >>> path = AttentionInterpolation(mode="outer")  # path.interpolate(a, b, steps=7)
    """

    paper = "AID: Attention Interpolation of Text-to-Image Diffusion, section 4"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "interpolate": frozenset({Space.NOISE, Space.TEXT, Space.ATTENTION})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "interpolate": frozenset({Capability.PROMPTS})
    }

    def __init__(
        self,
        *,
        mode: Literal["inner", "outer"] = "outer",
        fused: bool = True,
        guide: Name | None = None,
        warmup: Share = 0.5,
        alpha: Annotated[float, between(0.001, 1000)] = 1.0,
        beta: Annotated[float, between(0.001, 1000)] = 1.0,
        explore: Literal[0] | Annotated[int, between(3, 1000)] = 0,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        negative: str | None = None,
        convention: Convention = "matched",
    ) -> None:
        super().__init__(steps=steps, guidance=guidance, negative=negative, convention=convention)
        if guide is not None and not fused:
            raise BadInput("guide needs fused=true: without it cross-attention ignores the guide")
        self.mode: Literal["inner", "outer"] = mode
        self.fused, self.guide, self.warmup = fused, guide, warmup
        self.alpha, self.beta, self.explore = alpha, beta, explore

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a warm-up of less than a step, which would be plain interpolation."""
        if steps is not None and self.warmup > 0 and not whole_steps(self.warmup, steps):
            raise BadInput(
                f"method.warmup={self.warmup:g} is 0 of {steps} sampling steps; give 0 for none, "
                f"{1 / steps:g} or more, or raise method.steps"
            )

    def coefficients(self, a: Endpoint, b: Endpoint, frames: int) -> Float[Tensor, "b t"]:
        """Return t_i, quantiles of the Beta law of each path; 0 and 1 at the ends."""
        laws = [(self.alpha, self.beta)] * len(a.ids)
        if self.explore:
            even = super().coefficients(a, b, self.explore)
            laws = [fit_law(images) for images in self.frames(a, b, even).clamp(-1, 1)]
        places = np.linspace(0, 1, frames)
        return torch.as_tensor(np.stack([beta_law.ppf(places, *law) for law in laws])).float()

    def condition(self, a: Latent, b: Latent, w: Float[Tensor, "b t"]) -> Condition:
        """Return the condition of every frame: the guide's inside, where there is one."""
        own = super().condition(a, b, w)
        if self.guide is None:
            return own
        inside = ((w > 0) & (w < 1)).float().flatten()
        return own.lerp(self.model.condition((self.guide,) * len(inside), len(inside)), inside)

    def interventions(self, w: Float[Tensor, "b t"]) -> Sequence[Intervention]:
        """Return the interpolated attention of these frames."""
        return [InterpolatedAttention(self.mode, self.fused, w, self.warmup)]


def fit_law(images: Float[Tensor, "t 3 h w"]) -> tuple[float, float]:
    """Return (alpha, beta) of the Beta law that follows the way along evenly spaced frames.

    The way is the sum of the root mean squares of the differences of neighbouring frames, as a
    share of the whole; a path that does not move gets the uniform law.
    """
    steps = images.double().diff(dim=0).square().mean((1, 2, 3)).sqrt()
    if float(steps.sum()) == 0:
        return 1.0, 1.0
    way = (steps.cumsum(0) / steps.sum())[:-1].cpu().numpy()
    places = np.linspace(0, 1, len(images))[1:-1]
    edge = np.log(LARGEST)

    def gaps(logarithms: np.ndarray) -> np.ndarray:
        return beta_law.cdf(places, *np.exp(logarithms)) - way

    alpha, beta = np.exp(least_squares(gaps, np.zeros(2), bounds=(-edge, edge)).x)
    return float(alpha), float(beta)
