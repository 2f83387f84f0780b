"""Null-text inversion: the null branch of the guidance is optimised, step by step, per image."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, NotNegative, Positive, Steps, between
from latentbench.content import content_hash
from latentbench.model import Condition, Convention
from latentbench.parameterization import transition
from latentbench.sampling.descent import descend
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import Intervention, Step, Term, generate, plain, predict
from latentbench.types import Batch, Latent, Space
from methods.inversion.prompt_swap import PromptSwapEditor

TOKENS = "encoder_hidden_states"  # the part of a condition that is optimised


class NullText(PromptSwapEditor):
    """The null embedding of each step is fitted so that guided sampling follows the inversion.

    Source: "Null-text Inversion for Editing Real Images using Guided Diffusion Models", section 3
    and algorithm 1. x*_i is the DDIM inversion at guidance 1; from x*_T on, null_i minimises
    ||x*_{i-1} - step(x_i; eps(null_i) + w (eps(c_source) - eps(null_i)))||^2, beginning with
    null_{i+1}. The strength is lambda in c = (1 - lambda) c_source + lambda c_target at the one
    guidance w that the embeddings are made for: 0 is the reconstruction, 1 the published edit.
    Deviations: edits by prompt swap, where the paper couples prompt-to-prompt; loss and stop are
    each image's own, and an image that is good enough takes no further step (the published code
    takes one more); the tolerance is relative to the mean square of the latents, and it and the
    learning rate depend on the share of the steps that is behind (equal to the published ones at
    50 steps); pooled embeddings stay those of the empty prompt; the convention of the inversion
    (the published code's is "next").

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while inverting.
        guidance: guidance scale w.
        iterations: Adam steps per sampling step, at most; 0 keeps the empty prompt.
        learning_rate: of the first sampling step; half of it at the last one.
        tolerance: mean squared error at which an image's optimisation of the first sampling step
            stops, as a share of the latents' mean square; it grows to 101 times that.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = NullText(guidance=3.0)  # editor.decode(editor.invert(batch))
    """

    paper = "Null-text Inversion for Editing Real Images using Guided Diffusion Models, section 3"
    small: ClassVar[Mapping[str, int]] = {"iterations": 2}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE, Space.TEXT}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Convention = "matched",
        guidance: Guidance = 3.0,
        iterations: Annotated[int, between(0, 1000)] = 10,
        learning_rate: Positive = 0.01,
        tolerance: NotNegative = 1e-5,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.guidance = steps, guidance
        self.convention: Convention = convention
        self.iterations, self.learning_rate = iterations, learning_rate
        self.tolerance, self.max_strength = tolerance, max_strength

    def invert(self, batch: Batch) -> Latent:
        """Return x_T of each image and the null embedding of each step ``[b, n, m, d]``, cached."""
        source = self.model.condition(batch.prompts, len(batch))
        levels = ddim_trajectory(
            self.model, batch, self.cache,
            steps=self.steps, condition=source, convention=self.convention,
        )  # fmt: skip
        key = content_hash(
            self.version, self.model.fingerprint(), self.steps, levels, source.tensors,
            self.guidance, self.iterations, self.learning_rate, self.tolerance,
        )  # fmt: skip
        made = self.cache.get_or_make(
            "null_text", key, lambda: {"nulls": self._optimise(levels, source)}
        )
        nulls = made["nulls"].to(self.model.device)
        return Latent({Space.NOISE: levels[:, 0], Space.TEXT: nulls}, prompts=batch.prompts)

    def decode_towards(
        self, latent: Latent, target: Condition, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images of codes under conditions between their own and the target."""
        model, b, s = self.model, len(latent), len(strengths)
        condition = model.condition_of(latent).repeat(s).lerp(target.repeat(s), strengths.repeat(b))
        nulls = latent.parts[Space.TEXT].repeat_interleave(s, 0)
        z0 = generate(
            model,
            latent.parts[Space.NOISE].repeat_interleave(s, 0),
            [Term("condition", condition, self.guidance)],
            grid=model.grid(self.steps),
            interventions=[StepNull(model.unconditional(b * s), nulls, 1 - self.guidance)],
        )
        return model.decode(z0).unflatten(0, (b, s))

    def _optimise(
        self, levels: Float[Tensor, "b l ..."], source: Condition
    ) -> Float[Tensor, "b n m d"]:
        """Return the null embedding of each step."""
        model, grid = self.model, self.model.grid(self.steps)
        empty = model.unconditional(len(levels))
        null, x, nulls = empty.tensors[TOKENS], levels[:, 0], []
        for i in range(grid.n):
            goal, share = levels[:, i + 1], i / grid.n
            told = predict(model, x, grid, i, plain(source))
            null, x = descend(
                null,
                partial(self._follow, empty=empty, x=x, i=i, told=told, goal=goal),
                rate=self.learning_rate * (1 - share / 2),
                iterations=self.iterations,
                enough=self.tolerance * (1 + 100 * share) * goal.square().flatten(1).mean(1),
            )
            nulls.append(null)
        return torch.stack(nulls, 1)

    def _follow(
        self,
        null: Float[Tensor, "b m d"],
        *,
        empty: Condition,
        x: Float[Tensor, "b ..."],
        i: int,
        told: tuple[Tensor, Tensor],
        goal: Float[Tensor, "b ..."],
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b ..."]]:
        """Return how far each image's guided step from x misses its goal, and where it leads."""
        w, grid = self.guidance, self.model.grid(self.steps)
        away = predict(self.model, x, grid, i, plain(with_tokens(empty, null)))
        x0, eps = (n + w * (c - n) for n, c in zip(away, told, strict=True))
        led, _ = transition(grid, i, x0, eps, 0.0)
        return (led - goal).square().flatten(1).mean(1), led


class StepNull(Intervention):
    """Gives each step a null branch of its own.

    Args:
        empty: the empty condition.
        nulls: its tokens by step ``[b, n, m, d]``.
        weight: of the branch, 1 - w.
    """

    def __init__(self, empty: Condition, nulls: Float[Tensor, "b n m d"], weight: float) -> None:
        self.empty, self.nulls, self.weight = empty, nulls, weight

    def terms(self, step: Step) -> Sequence[Term]:
        """Return the null branch of this step."""
        null = with_tokens(self.empty, self.nulls[:, step.index])
        return (Term("null", null, self.weight),)


def with_tokens(condition: Condition, tokens: Float[Tensor, "b m d"]) -> Condition:
    """Return a condition with other token embeddings."""
    return Condition({**condition.tensors, TOKENS: tokens})
