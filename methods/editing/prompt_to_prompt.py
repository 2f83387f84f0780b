"""Prompt-to-Prompt: a target prompt's image under the attention maps of the source prompt's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from latentbench.bounds import (
    Count,
    Guidance,
    Name,
    Positive,
    Share,
    Steps,
    above,
    at_most,
    between,
    not_empty,
)
from latentbench.errors import BadInput
from latentbench.model import AttentionCall
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import Intervention, Step
from latentbench.types import Space
from methods.editing.alignment import (
    Alignment,
    changed_words,
    numbers_of,
    places_of,
    refined,
    replaced,
    require_a_word,
    same_number_of_words,
)
from methods.editing.coupled import CoupledEditor, Coupling, Memory, rows_of


@dataclass(frozen=True)
class TokenControl:
    """How maps over the prompt's tokens are made, one per image and strength.

    Args:
        A: weight of each source token in each target token.
        taken: share of the target's map that is the source's.
        factor: what the map is multiplied with.
    """

    A: Float[Tensor, "b s m m"]
    taken: Float[Tensor, "b s m"]
    factor: Float[Tensor, "b s m"]

    def __call__(
        self, source: Float[Tensor, "b h n m"], own: Float[Tensor, "r h n m"]
    ) -> Float[Tensor, "r h n m"]:
        """Return c (taken (M A) + (1 - taken) M*)."""
        M = torch.einsum("bhnj,bsjk->bshnk", source, self.A.to(source)).flatten(0, 1)
        taken, c = (v.flatten(0, 1)[:, None, None].to(own) for v in (self.taken, self.factor))
        return c * (taken * M + (1 - taken) * own)


class ControlledMaps(Intervention):
    """Gives the targets' conditional branch the attention maps of the source's.

    In joint attention, the image tokens' rows hold both kinds of maps; they are scaled to a sum of
    one again, and the text tokens' rows stay as they are.

    Args:
        memory: the source's queries and keys.
        control: how maps over tokens of the prompt are made.
        token_steps: steps in which they are.
        pixel_steps: steps in which maps over places of the image are the source's.
        pixels: the largest map over places that is.
    """

    def __init__(
        self,
        memory: Memory,
        control: TokenControl,
        token_steps: int,
        pixel_steps: int,
        pixels: int,
    ) -> None:
        self.memory, self.control = memory, control
        self.token_steps, self.pixel_steps, self.pixels = token_steps, pixel_steps, pixels

    def active(self, step: Step) -> bool:
        """Return whether maps of either kind are the source's."""
        return step.index < max(self.token_steps, self.pixel_steps)

    def attention(self, step: Step, call: AttentionCall) -> Tensor | None:
        """Return the layer's output under the maps that are taken over."""
        image = call.key.shape[2] - call.text
        over_tokens = call.text > 0 and step.index < self.token_steps
        over_pixels = 0 < image <= self.pixels and step.index < self.pixel_steps
        if not over_tokens and not over_pixels:
            return None
        rows = rows_of(step, call, "condition")
        out = call.attend().clone()
        q, k = self.memory.queries[call.layer], self.memory.keys[call.layer]
        if not call.text:
            s = (rows.stop - rows.start) // len(q)
            q, k = (v.repeat_interleave(s, 0) for v in (q, k))
            out[rows] = call.attend(q, k, call.value[rows])
            return out
        places = image or q.shape[2]
        theirs = maps_of(q[:, :, :places], k, call.scale)
        maps = maps_of(call.query[rows][:, :, :places], call.key[rows], call.scale)
        parts = [maps[..., :image], maps[..., image:]]
        if over_pixels:
            parts[0] = theirs[..., :image].repeat_interleave(len(maps) // len(theirs), 0)
        if over_tokens:
            parts[1] = self.control(theirs[..., image:], parts[1])
        maps = torch.cat(parts, -1)
        if image:
            maps = maps / maps.sum(-1, keepdim=True)
        out[rows, :, :places] = maps @ call.value[rows]
        return out


class WordMasks(Intervention):
    """Where the words of interest lie in source and targets, by the mean of their maps so far.

    Args:
        memory: the source's queries and keys.
        source: 1 at the words' tokens in the source prompt.
        target: the same of the target prompt.
        n: number of sampling steps.
        start: share of the steps before the first blending.
        threshold: what belongs to the mask, as a share of the largest value.
    """

    def __init__(
        self,
        memory: Memory,
        source: Float[Tensor, "b m"],
        target: Float[Tensor, "b m"],
        n: int,
        start: float,
        threshold: float,
    ) -> None:
        self.memory, self.source, self.target = memory, source, target
        self.first, self.threshold = whole_steps(start, n), threshold
        self.sums: dict[int, Tensor] = {}  # side of the map -> [b, 1 + s, side, side]

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Add the words' maps of one layer; change nothing."""
        if not call.text:
            return None
        rows, image = rows_of(step, call, "condition"), call.key.shape[2] - call.text
        q, k = self.memory.queries[call.layer], self.memory.keys[call.layer]
        places, b = image or q.shape[2], len(q)
        ours = maps_of(call.query[rows][:, :, :places], call.key[rows], call.scale)
        told = torch.stack([
            _of_words(maps_of(q[:, :, :places], k, call.scale)[..., image:], self.source),
            *_of_words(
                ours[..., image:], self.target.repeat_interleave(len(ours) // b, 0)
            ).unflatten(0, (b, -1)).unbind(1),
        ], 1)  # fmt: skip
        side = round(places**0.5)
        self.sums[side] = self.sums.get(side, 0) + told.unflatten(2, (side, side))
        return call

    def blend(
        self, index: int, source: Float[Tensor, "b c h w"], x: Float[Tensor, "r c h w"]
    ) -> Float[Tensor, "r c h w"]:
        """Return the targets where the words are, the source elsewhere."""
        if index < self.first:
            return x
        inside = self.mask(x.shape[-1])
        s = inside.shape[1]
        return torch.where(inside.flatten(0, 1)[:, None], x, source.repeat_interleave(s, 0))

    def mask(self, side: int) -> Bool[Tensor, "b s h w"]:
        """Return the union of the source's and each target's mask, in the latents' resolution.

        The maps are those whose resolution is nearest to a quarter of the latents'.
        """
        maps = self.sums[min(self.sums, key=lambda own: abs(own - side / 4))]
        smooth = interpolate(max_pool2d(maps, 3, 1, 1), size=(side, side))
        inside = smooth > self.threshold * smooth.amax((-2, -1), keepdim=True)
        return inside[:, :1] | inside[:, 1:]


class PromptToPrompt(CoupledEditor):
    """Samples the target under the source's maps: over words for layout, over places for structure.

    Source: "Prompt-to-Prompt Image Editing with Cross Attention Control", section 3 and algorithm
    1. With M the source's maps and M* the target's, in the conditional branch: maps over the
    prompt's tokens are M A, word by word ("replace") or where both prompts have the token
    ("refine"), times a factor for words of interest ("reweight"), in the first share
    `cross_replace` of the steps; maps over places of the image are M in the first share
    `self_replace`. With `local_blend` the target is kept where words of interest are, in either
    image, and is the source elsewhere.

    Deviations: the source is sampled at guidance 1, at which it was inverted (`source_guidance`);
    the strength moves A, the share that is taken and the factors from those of equal prompts to the
    published ones, together with condition and guidance; words are found by the tokenizer's
    offsets; masks are made of the target's own maps, where the published code has them after the
    exchange; joint attention (Stable Diffusion 3, FLUX) is the suite's own. See `CoupledEditor`
    for the source and the strength.

    Args:
        steps: sampling steps; default: the model's.
        source: "sampled" from x_T, or "stored": at every level the inversion's own latent (Direct
            Inversion).
        mode: "replace", "refine", or "auto": replace where both prompts have as many words.
        cross_replace: share of the steps with the source's maps over tokens.
        self_replace: share of the steps with the source's maps over places.
        self_pixels: largest map over places that is exchanged, in pixels; default: a quarter of the
            latents' (32 x 32 of 64 x 64).
        reweight: factor on the maps of words of interest.
        local_blend: keep the source where words of interest are not.
        blend_start: share of the steps before blending.
        blend_threshold: what belongs to the mask, as a share of the largest value of a word's map.
        words: words of interest; default: those in which the prompts differ.
        inversion_prompt: prompt of the inversion and the source; default: each image's own caption.
        source_guidance: guidance scale of the source; published pipelines take the target's.
        negative: prompt that guidance leads away from; default: the empty condition.
        guidance: guidance scale of the target at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Raises:
        BadInput: "replace" with prompts of unequal numbers of words, or words none of which is in
            either prompt.

    Example:
        >>> editor = PromptToPrompt(mode="refine")  # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "Prompt-to-Prompt Image Editing with Cross Attention Control, section 3"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT, Space.TOKEN_MAPS}),
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        source: Literal["sampled", "stored"] = "sampled",
        mode: Literal["auto", "replace", "refine"] = "auto",
        cross_replace: Share = 0.4,
        self_replace: Share = 0.6,
        self_pixels: Count | None = None,
        reweight: Annotated[float, between(-100, 100)] = 1.0,
        local_blend: bool = False,
        blend_start: Share = 0.2,
        blend_threshold: Annotated[float, above(0), at_most(1)] = 0.3,
        words: Annotated[Sequence[Name], not_empty] | None = None,
        inversion_prompt: str | None = None,
        source_guidance: Guidance = 1.0,
        negative: str | None = None,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, source=source, inversion_prompt=inversion_prompt,
            source_guidance=source_guidance, negative=negative, guidance=guidance,
            max_strength=max_strength,
        )  # fmt: skip
        self.mode, self.reweight, self.words = mode, reweight, words
        self.cross_replace, self.self_replace = cross_replace, self_replace
        self.self_pixels = self_pixels
        self.local_blend = local_blend
        self.blend_start, self.blend_threshold = blend_start, blend_threshold

    def coupled_steps(self, n: int) -> int:
        """Return the larger share; all steps where the source is kept outside a mask."""
        return n if self.local_blend else max(self._steps(n))

    def couple(
        self,
        n: int,
        sources: Sequence[str],
        targets: Sequence[str],
        strengths: Float[Tensor, " s"],
    ) -> Coupling:
        """Return the exchange of maps, and the blending where it is asked for."""
        for pair in zip(sources, targets, strict=True):
            if self.words is not None:
                require_a_word(pair, self.words)
        memory, side = Memory(), self.model.latent_shape[-1]
        control = self._control(sources, targets, strengths)
        pixels = self.self_pixels or (side // 2) ** 2
        maps = ControlledMaps(memory, control, *self._steps(n), pixels)
        if not self.local_blend:
            return Coupling(self.coupled_steps(n), [memory], [maps])
        ours, theirs = (
            self._places(*prompts).to(self.model.device)
            for prompts in ((sources, targets), (targets, sources))
        )
        masks = WordMasks(memory, ours, theirs, n, self.blend_start, self.blend_threshold)
        return Coupling(n, [memory], [masks, maps], masks.blend)

    def _steps(self, n: int) -> tuple[int, int]:
        return whole_steps(self.cross_replace, n), whole_steps(self.self_replace, n)

    def _control(
        self, sources: Sequence[str], targets: Sequence[str], strengths: Float[Tensor, " s"]
    ) -> TokenControl:
        """Return the control of each pair of prompts at each strength."""
        found = [self._align(*pair) for pair in zip(sources, targets, strict=True)]
        A, taken = torch.stack([a.A for a in found]), torch.stack([a.taken for a in found])
        factor = 1 + (self.reweight - 1) * self._places(targets, sources)
        w = strengths[:, None]
        return TokenControl(
            (1 - w[..., None]) * torch.eye(A.shape[-1]) + w[..., None] * A[:, None],
            1 - w + w * taken[:, None],
            1 - w + w * factor[:, None],
        )

    def _align(self, source: str, target: str) -> Alignment:
        by_word = same_number_of_words(source, target)
        if self.mode == "replace" and not by_word:
            raise BadInput(
                f"method.mode=replace needs prompts with as many words, got {source!r} and "
                f"{target!r}; use method.mode=refine or auto"
            )
        align = replaced if by_word and self.mode != "refine" else refined
        ours, theirs = self.model.prompt_tokens(source), self.model.prompt_tokens(target)
        return Alignment.concat([align(a, b) for a, b in zip(ours, theirs, strict=True)])

    def _places(self, prompts: Sequence[str], others: Sequence[str]) -> Float[Tensor, "b m"]:
        """Return 1 at the tokens of the words of interest in each prompt."""
        rows = []
        for prompt, other in zip(prompts, others, strict=True):
            own = changed_words(prompt, other)
            words = own if self.words is None else numbers_of(prompt, self.words)
            rows.append(places_of(self.model.prompt_tokens(prompt), words))
        return torch.stack(rows)


def maps_of(
    query: Float[Tensor, "r h n d"], key: Float[Tensor, "r h m d"], scale: float
) -> Float[Tensor, "r h n m"]:
    """Return attention maps."""
    return (query @ key.transpose(-1, -2) * scale).softmax(-1)


def _of_words(maps: Float[Tensor, "r h n m"], words: Float[Tensor, "r m"]) -> Float[Tensor, "r n"]:
    """Return the words' maps: the sum over tokens, the mean over heads."""
    return torch.einsum("rhnm,rm->rn", maps, words) / maps.shape[1]
