"""RIVAL: variations and edits that read a real image's inversion chain as they form."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Share, Steps, above, at_most
from latentbench.model import AttentionCall, Condition
from latentbench.parameterization import split_prediction, whole_steps
from latentbench.sampling.loop import Intervention, Step, Term, guided, plain
from latentbench.types import Batch, Capability, Latent, Space
from methods.editing.coupled import CoupledEditor, Coupling
from methods.inversion.own_prompts import prompts_of

NEARLY_CONSTANT = 1e-5  # added to variances, as in the authors' code


class Reference(Intervention):
    """Keeps a reference's keys and values of self-attention, and its prediction, in this step.

    Args:
        null: empty condition of a branch that only listens, for targets with a null branch.

    Attributes:
        context: layer -> branch -> (keys, values) of the image's tokens.
        direction: what was predicted, see `Grid.direction`.
    """

    direction: Float[Tensor, "b ..."]

    def __init__(self, null: Condition | None) -> None:
        self.null = null
        self.context: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}

    def terms(self, step: Step) -> Sequence[Term]:
        """Return the listening branch, of weight 0."""
        return () if self.null is None else (Term("null", self.null, 0.0),)

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Keep keys and values; change nothing."""
        image = call.key.shape[2] - call.text
        if not image:
            return None
        keys, values = (step.split(v[:, :, :image]) for v in (call.key, call.value))
        pairs = zip(keys, values, strict=True)
        self.context[call.layer] = dict(zip(step.branches, pairs, strict=True))
        return call

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the prediction."""
        self.direction = step.grid.direction(x0, eps)
        return x0, eps


class CrossImageAttention(Intervention):
    """Gives self-attention the reference's keys and values, alone and later beside its own.

    Section 3.1 of the paper: Attn(Q_G, K_R, V_R) in the steps before t_align, then
    Attn(Q_G, [K_R K_G], [V_R V_G]). Each branch reads its own branch of the reference. In joint
    attention the text's tokens stand beside either image's, so that they keep their share.

    Args:
        reference: what the reference keeps.
        first: step from which it acts.
        joint: step from which the image's own keys and values come beside the reference's.
    """

    def __init__(self, reference: Reference, first: int, joint: int) -> None:
        self.reference, self.first, self.joint = reference, first, joint

    def active(self, step: Step) -> bool:
        """Return whether the step is not one of the free ones."""
        return step.index >= self.first

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Return the call with other keys and values; leave cross-attention."""
        image = call.key.shape[2] - call.text
        if not image:
            return None
        rows = len(call.key) // len(step.branches)
        context = self.reference.context[call.layer]
        theirs = (
            torch.cat([v.repeat_interleave(rows // len(v), 0) for v in same])
            for same in zip(*(context[name] for name in step.branches), strict=True)
        )
        key, value = (
            torch.cat([their, own[:, :, image:], *([own] if step.index >= self.joint else [])], 2)
            for their, own in zip(theirs, (call.key, call.value), strict=True)
        )
        return replace(call, key=key, value=value)


class MatchedStatistics(Intervention):
    """Gives each channel of the prediction the mean and standard deviation of the reference's.

    Section 3.2 of the paper, AdaIN(eps_G, eps_R); of a flow it is the velocity.

    Args:
        reference: what the reference keeps.
        steps: how many steps, the noisiest, it acts in.
    """

    def __init__(self, reference: Reference, steps: int) -> None:
        self.reference, self.steps = reference, steps

    def active(self, step: Step) -> bool:
        """Return whether the step is one of the first."""
        return step.index < self.steps

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prediction with the reference's statistics."""
        own, theirs = step.grid.direction(x0, eps), self.reference.direction
        theirs = theirs.repeat_interleave(len(own) // len(theirs), 0)
        (mean, std), (goal, spread) = _statistics(own), _statistics(theirs)
        matched = (own - mean) / std * spread + goal
        kind = "flow" if step.grid.straight else "epsilon"
        return split_prediction(kind, matched, x, *step.grid.levels(step.level, x))


class Rival(CoupledEditor):
    """Samples an image that attends to a real image's inversion chain, in every step.

    Source: "Real-World Image Variation by Aligning Diffusion Inversion Chain" (RIVAL), sections 3.1
    and 3.2. The reference R runs through its DDIM inversion, which is put back after every step, so
    that it never drifts. The generated image G starts from R's x_T, its places shuffled for a
    variation and as they are for an edit. Its self-attention is Attn(Q_G, K_R, V_R) until t_align,
    then Attn(Q_G, [K_R K_G], [V_R V_G]), and its prediction is AdaIN(eps_G, eps_R), which has R's
    channel statistics, while t > t_early.

    The strength lambda moves the condition c = (1 - lambda) c_source + lambda c_target and the
    guidance from 1 to `guidance`; below 1 the image gets the share 1 - lambda of what separates
    R's step from its chain, so that 0 is the reference itself. 1 is the published edit.

    Deviations: times are shares of the sampling steps (the published code's attention counts them
    by a counter of its own, one step ahead of the sampler: 19 steps where AdaIN has 20); any number
    of images and draws at once; the inversion's convention is "matched" (the published "next");
    edits invert under the caption (the authors' "" is `inversion_prompt`); R has no guidance, its
    null branch is evaluated only for G's to read. Inpainting is not here.

    Args:
        steps: sampling steps; default: the model's.
        t_align: time (1 noise, 0 image) down to which G reads R's keys and values alone, then both.
        t_early: time down to which predictions get R's statistics.
        t_start: time from which attention is coupled; before it, G reads its own.
        inversion_prompt: prompt of the inversion and of R; default: each image's own caption.
        negative: prompt that G's guidance leads away from; default: the empty condition.
        guidance: guidance scale of a variation, and of an edit at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = Rival(t_align=0.6)  # editor.vary(batch, draws=4)
    """

    paper = "Real-World Image Variation by Aligning Diffusion Inversion Chain, section 3"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT, Space.TOKEN_MAPS}),
        "vary": frozenset({Space.NOISE, Space.ATTENTION}),
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        t_align: Share = 0.6,
        t_early: Share = 0.6,
        t_start: Annotated[float, above(0), at_most(1)] = 1.0,
        inversion_prompt: str | None = None,
        negative: str | None = None,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, source="stored", inversion_prompt=inversion_prompt, negative=negative,
            guidance=guidance, max_strength=max_strength,
        )  # fmt: skip
        self.t_align, self.t_early, self.t_start = t_align, t_early, t_start

    def coupled_steps(self, n: int) -> int:
        """Return n: attention is coupled down to the image."""
        return n

    def couple(
        self,
        n: int,
        sources: Sequence[str],
        targets: Sequence[str],
        strengths: Float[Tensor, " s"],
    ) -> Coupling:
        """Return the coupled attention and statistics."""
        return self._coupling(n, self.model.unconditional(len(sources)))

    def vary(self, batch: Batch, draws: int) -> Float[Tensor, "b v 3 h w"]:
        """Return images of what each image shows, each from another shuffling of its x_T."""
        model, b = self.model, len(batch)
        levels, prompts = self._levels(batch), prompts_of(batch, self.inversion_prompt)
        empty = model.unconditional(b)
        told = empty if prompts is None else model.condition_of(Latent({}, prompts=prompts))
        prompted = Capability.PROMPTS in model.gives
        null = empty if prompted and self.guidance != 1 else None
        theirs = plain(told.repeat(draws))
        if null is not None:
            away = model.unconditional(b * draws, self.negative)
            theirs = guided(told.repeat(draws), away, self.guidance)
        z0 = self.sample_beside(
            levels, plain(told), self._shuffled(levels[0], batch.ids, draws), theirs,
            self._coupling(model.grid(self.steps).n, null), torch.zeros(b * draws),
        )  # fmt: skip
        return model.decode(z0).unflatten(0, (b, draws))

    def _shuffled(
        self, x: Float[Tensor, "b c h w"], ids: Sequence[str], draws: int
    ) -> Float[Tensor, "r c h w"]:
        """Return x_T with its places in another order for each draw, the same in all channels."""
        places = x[0, 0].numel()
        order = self.streams.normal("rival/places", ids, (draws, places), x.device).argsort(-1)
        flat = x.flatten(2)[:, None].expand(-1, draws, -1, -1)
        index = order[:, :, None].expand(flat.shape)
        return flat.gather(-1, index).flatten(0, 1).reshape(-1, *x.shape[1:])

    def _coupling(self, n: int, null: Condition | None) -> Coupling:
        reference = Reference(null)
        first, joint, early = (
            n - whole_steps(t, n) for t in (self.t_start, self.t_align, self.t_early)
        )
        attention = CrossImageAttention(reference, first, joint)
        return Coupling(n, [reference], [attention, MatchedStatistics(reference, early)])


def _statistics(
    maps: Float[Tensor, "b c h w"],
) -> tuple[Float[Tensor, "b c 1 1"], Float[Tensor, "b c 1 1"]]:
    """Return mean and standard deviation of each channel."""
    return (
        maps.mean((2, 3), keepdim=True),
        (maps.var((2, 3), keepdim=True) + NEARLY_CONSTANT).sqrt(),
    )
