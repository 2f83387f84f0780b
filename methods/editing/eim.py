"""EIM: encode, identify directions in text and image latents, manipulate both."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import (
    Count,
    Guidance,
    NotNegative,
    Positive,
    Share,
    Steps,
    above,
    at_most,
    between,
)
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.parameterization import whole_steps
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import generate, guided, noise_to_level, plain, predict
from latentbench.types import Batch, Capability, Edit, Latent, Space

Made = Annotated[float, above(0), at_most(1)]  # share of the steps
SHORT = 1e-6  # of directions, relative to the longest: what is shorter points nowhere


class EncodeIdentifyManipulate(Editor[DiffusionModel]):
    """Moves an image's latents along what two prompts tell apart, and samples under the target.

    Source: "Latent Space Disentanglement in Diffusion Transformers Enables Precise Zero-shot
    Semantic Editing". Encode: z_0, and x at the level where `share` of the steps remain. Identify:
    in text, n = c_1 - c_0; in the image, a displacement D of z_0 by Hessian score distillation.
    Manipulate: sample from the level on, with z_0 + beta D and c_0 + alpha n.

    The authors have published no code, and their equations of the distillation are not at hand;
    those here are this suite's own. In each of `iterations`, with z = z_0 + D under fresh noise at
    `draws` levels, g is the mean of x0(c_0) - x0(c_1), the difference of what is predicted under
    source and target; u_k the same between the source and the source without its kept word k, and
    U their orthonormal basis. What is kept has the quadratic model (lambda / 2) |U^T d|^2, so that
    d = -(g - lambda / (1 + lambda) U U^T g), and D moves by `rate` d. With `hold` 0 and one
    iteration it is a delta denoising score.

    The strength is alpha = beta, and guidance goes with it from 1 to `guidance`: 0 is the
    reconstruction.

    Args:
        steps: sampling steps; default: the model's.
        share: share of the steps that are made; more change more.
        noise: "drawn": the level is reached by fresh noise, as published; "inverted": by inversion
            under the source prompt.
        mode: "joint", "text" (beta is 0) or "image" (alpha is 0).
        guidance: guidance scale at strength 1.
        iterations: moves of D.
        draws: levels and noises per move.
        first: noisiest level that is drawn, as a share of the steps.
        last: cleanest level that is drawn.
        kept_words: how many kept words are preserved at most, the first ones of each caption.
        hold: lambda.
        rate: length of a move.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: no level between `first` and `last`, or a share of less than a step.

    Example:
        >>> editor = EncodeIdentifyManipulate(mode="text")
        >>> # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "Latent Space Disentanglement in Diffusion Transformers Enables Zero-shot Editing"
    small: ClassVar[Mapping[str, int]] = {"iterations": 2, "draws": 1}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        share: Made = 0.7,
        noise: Literal["drawn", "inverted"] = "drawn",
        mode: Literal["joint", "text", "image"] = "joint",
        guidance: Guidance = 4.0,
        iterations: Annotated[int, between(0, 1000)] = 10,
        draws: Count = 4,
        first: Share = 0.2,
        last: Made = 0.8,
        kept_words: Annotated[int, between(0, 100)] = 2,
        hold: NotNegative = 5.0,
        rate: Positive = 0.1,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.share, self.noise, self.mode = steps, share, noise, mode
        self.guidance, self.iterations, self.draws = guidance, iterations, draws
        self.first, self.last, self.kept_words = first, last, kept_words
        self.hold, self.rate, self.max_strength = hold, rate, max_strength

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a share of less than a step, and an empty range of levels."""
        if steps is None:
            return
        if not whole_steps(self.share, steps):
            raise BadInput(
                f"method.share={self.share} is less than one of {steps} sampling steps; give "
                f"{1 / steps:g} or more"
            )
        if not self._levels(steps):
            raise BadInput(
                f"no level of {steps} sampling steps lies between method.first={self.first} and "
                f"method.last={self.last}; widen the range, or raise method.steps"
            )

    def invert(self, batch: Batch) -> Latent:
        """Return x at the level where the share of the steps remains."""
        model, grid = self.model, self.model.grid(self.steps)
        start = grid.n - whole_steps(self.share, grid.n)
        if self.noise == "drawn":
            e = self.streams.normal("eim", batch.ids, model.latent_shape, model.device)
            x = noise_to_level(grid, model.encode(batch.images), e, start)
        else:
            told = model.condition_of(Latent({}, prompts=batch.prompts))
            levels = ddim_trajectory(model, batch, self.cache, steps=self.steps, condition=told)
            x = levels[:, start]
        return Latent({Space.NOISE: x}, start, batch.prompts)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return what sampling under the source prompt makes of the codes."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the manipulated images."""
        assert batch.prompts is not None and edit.target_prompts is not None
        model, grid, s = self.model, self.model.grid(self.steps), len(strengths)
        latent = self.invert(batch)
        weight = strengths.repeat(len(batch)).to(model.device)
        c = model.condition(batch.prompts, len(batch)).repeat(s)
        if self.mode != "image":
            target = model.condition(edit.target_prompts, len(batch)).repeat(s)
            c = c.lerp(target, weight)
        x = latent.parts[Space.NOISE].repeat_interleave(s, 0)
        if self.mode != "text":
            D = self.displacement(batch, edit.target_prompts).repeat_interleave(s, 0)
            alpha, _ = grid.levels(latent.start, x)
            x = x + alpha * weight.reshape(-1, *[1] * (x.dim() - 1)) * D
        scale = 1 + weight * (self.guidance - 1)
        terms = guided(c, model.unconditional(len(x)), scale)
        z0 = generate(model, x, terms, grid=grid, start=latent.start)
        return model.decode(z0).unflatten(0, (len(batch), s))

    def displacement(self, batch: Batch, targets: Sequence[str]) -> Float[Tensor, "b ..."]:
        """Return D: where the target lies from each image's latents, kept words aside."""
        assert batch.prompts is not None
        model, b = self.model, len(batch)
        z, others = model.encode(batch.images), self.preserved(batch.prompts, targets)
        told = [model.condition(prompts, b) for prompts in (batch.prompts, tuple(targets), *others)]
        D = torch.zeros_like(z)
        for k in range(self.iterations):
            found = self._predicted(z + D, batch.ids, k, told)
            g, *u = (found[0] - found[j] for j in range(1, len(told)))
            D = D - self.rate * newton_step(g, u, self.hold)
        return D

    def preserved(self, sources: Sequence[str], targets: Sequence[str]) -> list[tuple[str, ...]]:
        """Return captions without one kept word each; a caption of too few has itself instead."""
        rows = []
        for source, target in zip(sources, targets, strict=True):
            words, kept = source.split(), set(target.split())
            places = [j for j, word in enumerate(words) if word in kept][: self.kept_words]
            without = [" ".join(words[:j] + words[j + 1 :]) for j in places]
            rows.append(without + [source] * (self.kept_words - len(without)))
        return list(zip(*rows, strict=True))

    def _predicted(
        self, z: Float[Tensor, "b ..."], ids: Sequence[str], k: int, told: Sequence[Condition]
    ) -> list[Float[Tensor, "b ..."]]:
        """Return x0 under each condition, the mean over levels and noises, in one network call."""
        model, grid, m = self.model, self.model.grid(self.steps), self.draws
        e = self.streams.normal(f"eim/{k}", ids, (m, *z.shape[1:]), z.device).flatten(0, 1)
        allowed = self._levels(grid.n)
        drawn = torch.stack([
            torch.randint(len(allowed), (m,), generator=self.streams.generator(f"eim/level/{k}", i))
            for i in ids
        ])  # fmt: skip
        level = torch.tensor(allowed)[drawn].flatten()
        alpha, sigma = grid.levels(level, z)
        x = alpha * z.repeat_interleave(m, 0) + sigma * e
        many = [1] * (x.dim() - 1)
        condition = Condition.concat([c.repeat(m) for c in told])
        x0, _ = predict(
            model, x.repeat(len(told), *many), grid, level.repeat(len(told)), plain(condition)
        )
        return list(x0.unflatten(0, (len(told), len(ids), m)).mean(2))

    def _levels(self, n: int) -> list[int]:
        return [i for i in range(n) if self.first <= i / n <= self.last]


def newton_step(
    g: Float[Tensor, "b ..."], directions: Sequence[Float[Tensor, "b ..."]], weight: float
) -> Float[Tensor, "b ..."]:
    """Return (I + lambda U U^T)^-1 g, with U an orthonormal basis of directions, each row's own.

    Example:
        >>> g, u = torch.tensor([[2.0, 2.0]]), torch.tensor([[0.0, 3.0]])
        >>> newton_step(g, [u], 1.0).tolist()
        [[2.0, 1.0]]
    """
    if not directions or weight == 0:
        return g
    flat = g.flatten(1).double()
    U, S, _ = torch.linalg.svd(
        torch.stack([u.flatten(1) for u in directions], 2).double(), full_matrices=False
    )
    U = U * (S > SHORT * S.amax(1, keepdim=True).clamp(min=1e-12))[:, None]
    along = torch.einsum("bdk,bek,be->bd", U, U, flat)
    return (flat - weight / (1 + weight) * along).to(g).reshape(g.shape)
