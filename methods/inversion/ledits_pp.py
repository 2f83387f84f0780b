"""LEDITS++: noise maps of a second-order sampler, edited by masked guidance towards concepts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from latentbench.bounds import Positive, Share, Steps, above, at_least, at_most, below
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.parameterization import Grid, whole_steps
from latentbench.prompt_tokens import words_of
from latentbench.sampling.loop import Intervention, Step, Term, Window, captioned, plain
from latentbench.types import Batch, Capability, Concept, Edit, Latent, Space
from methods.editing.alignment import changed_words, places_of
from methods.inversion.edit_friendly_ddpm import draw_independently
from methods.inversion.masked_guidance import Guide, MaskedGuidance
from methods.inversion.noise_maps import NoiseMapEditor, Skip


@dataclass(frozen=True)
class MaskedConcept(Concept):
    """A concept with masks and a time of its own.

    Args:
        threshold: share of the image that each of its masks leaves out; None: the method's.
        window: from and to which share of the steps that are made it guides; None: the method's.
    """

    threshold: float | None = None
    window: Window | None = None


class LEDITSPlusPlus(NoiseMapEditor):
    """eps = eps(null) + sum_c s_c M_c (eps(c) - eps(null)), from noise maps of SDE-DPM-Solver++ 2M.

    Source: "LEDITS++: Limitless Image Editing using Text-to-Image Models", section 3. The image is
    inverted without a prompt, each level noised on its own as in `EditFriendlyDDPM`. M2 keeps the
    places where the concept changes the prediction most; with `masks` "both", M = M1 M2, where M1
    keeps the places that read the concept's words most in this step: the mean of the maps over
    layers and heads, smoothed by a 3 x 3 Gaussian. s_c is the strength, the paper's s_e, times the
    concept's weight: 0 is the exact reconstruction, at every number of steps. A concept of negative
    weight is led away from.
    Deviations: where the clean end has no noise the last step is of first order and what it leaves
    is kept (the diffusers port drops it, and the reconstruction with it); the order is the same in
    inversion and edit (the published scheduler lowers it in the last step below 15 steps); M is
    M2 alone by default, as in the authors' code; only the tokens of words count for M1, without
    those of the prompt's end and its padding, and maps are the largest of at most 16 x 16; the
    masks hold in all steps (the diffusers port leaves M2 out of the noisiest).

    Args:
        steps: sampling steps; default: the model's.
        skip: how many of the noisiest steps are left out, as a count or as a share of the steps.
        threshold: share of the image that each mask leaves out; 0 is no mask.
        masks: "prediction" for M2 alone, "both" for M1 M2.
        warmup: share of the steps that are made before guidance begins.
        cooldown: share of the steps that are made after which guidance ends.
        concept: what guides: the caption of the edited image ("target"), the attribute in words
            after the edit ("words"), or towards these and away from the words before it
            ("opposed"). An edit without words of its own has those in which the captions differ.
        max_strength: largest s_e of a benchmark's curve.

    Raises:
        BadInput: guidance that would end before it begins, or an edit without the words that
            `concept` asks for.

    Example:
        >>> editor = LEDITSPlusPlus(skip=0.15)  # editor.edit(batch, edit, torch.tensor([0.0, 5.0]))
        >>> two = [Concept(("hat",)), MaskedConcept(("glasses",), -0.5, threshold=0.9)]
        >>> # editor.edit_concepts(batch, two, torch.tensor([0.0, 5.0]))
    """

    paper = "LEDITS++: Limitless Image Editing using Text-to-Image Models, section 3"
    version = 1
    neutral: ClassVar[Mapping[str, Any]] = {
        "masks": "prediction", "warmup": 0.0, "cooldown": 1.0
    }  # fmt: skip

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        skip: Skip = 0.15,
        threshold: Annotated[float, at_least(0), below(1)] = 0.75,
        masks: Literal["prediction", "both"] = "prediction",
        warmup: Share = 0.0,
        cooldown: Annotated[float, above(0), at_most(1)] = 1.0,
        concept: Literal["target", "words", "opposed"] = "target",
        max_strength: Positive = 5.0,
    ) -> None:
        super().__init__(steps=steps, eta=1.0, skip=skip, max_strength=max_strength)
        self.threshold, self.masks, self.concept = threshold, masks, concept
        self.warmup, self.cooldown = warmup, cooldown
        if warmup >= cooldown:
            raise BadInput(
                f"method.warmup={warmup} is not below method.cooldown={cooldown}, so that guidance "
                f"would end before it begins; lower method.warmup or raise method.cooldown"
            )

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return those of the class, and the maps over tokens that M1 is made of."""
        asked = frozenset(verbs)
        spaces, needs = super().required(asked, config)
        if "edit" in asked and config.get("masks") == "both":
            spaces |= {Space.TOKEN_MAPS}
        return spaces, needs

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse a skip or a window that leaves no step."""
        super().check(data, steps, strengths)
        if steps is not None:
            self._window((self.warmup, self.cooldown), self.start(steps), steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the codes' images under guidance of these strengths."""
        return self.edit_concepts(batch, self.concepts(batch, edit), strengths)

    def edit_concepts(
        self, batch: Batch, concepts: Sequence[Concept], strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the codes' images under guidance by several concepts, which add up.

        Args:
            batch: the images.
            concepts: what to lead to, or away from where the weight is negative; an empty caption
                leaves its image alone. A `MaskedConcept` has masks and a time of its own.
            strengths: factors on all weights.

        Raises:
            BadInput: not one caption per image, a threshold outside [0, 1), a window without a
                step, or a caption without words where masks are made of them.
        """
        guides = self._guides(concepts, len(batch), strengths)
        return self._guided(self.invert(batch), guides, strengths)

    def concepts(self, batch: Batch, edit: Edit) -> list[Concept]:
        """Return the concepts of an edit.

        Raises:
            BadInput: the setting `concept` asks for words, and there are none.
        """
        assert edit.target_prompts is not None
        if self.concept == "target":
            return [Concept(edit.target_prompts)]
        before, after = words_of_edit(batch, edit)
        asked = (after, before) if self.concept == "opposed" else (after,)
        for k, texts in enumerate(zip(*asked, strict=True)):
            if not any(texts):
                raise BadInput(
                    f"method.concept={self.concept}, but the edit {edit.name!r} has no words of "
                    f"its own, and its caption {edit.target_prompts[k]!r} no word that differs; "
                    f"use method.concept=target"
                )
        return [Concept(text, weight) for text, weight in zip(asked, (1.0, -1.0), strict=False)]

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of the codes."""
        return self._guided(latent, [], torch.zeros(1))[:, 0]

    def draw_levels(
        self, grid: Grid, x0: Float[Tensor, "b ..."], batch: Batch, start: int
    ) -> Float[Tensor, "b l ..."]:
        """Return x at levels start..n, each noised on its own."""
        shape = (grid.n - start, *x0.shape[1:])
        return draw_independently(
            grid, x0, self.streams.normal("ledits_pp", batch.ids, shape, x0.device), start
        )

    def higher_order(
        self, grid: Grid, x0: Float[Tensor, "b n ..."], start: int
    ) -> Float[Tensor, "b n ..."]:
        """Return the second-order part of each step's mean."""
        weights = [second_order(grid, i) if i > start else 0.0 for i in range(start, grid.n)]
        change = torch.cat([torch.zeros_like(x0[:, :1]), x0.diff(dim=1)], 1)
        return torch.tensor(weights).to(x0).reshape(-1, *[1] * (x0.dim() - 2)) * change

    def _guided(
        self, latent: Latent, guides: Sequence[Guide], strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        b, s = len(latent), len(strengths)
        towards = MaskedGuidance(self.model, guides)
        terms = plain(self.model.unconditional(b * s))
        images = self._images(self.model, latent, terms, s, [towards, SecondOrder()])
        return images.unflatten(0, (b, s))

    def _guides(
        self, concepts: Sequence[Concept], b: int, strengths: Float[Tensor, " s"]
    ) -> list[Guide]:
        """Return how each concept guides rows (image, strength)."""
        for one in concepts:
            if len(one.prompts) != b:
                raise BadInput(
                    f"a concept has {len(one.prompts)} captions for {b} images; give one per image"
                )
        return [self._guide(one, strengths) for one in concepts]

    def _guide(self, concept: Concept, strengths: Float[Tensor, " s"]) -> Guide:
        model, s, prompts = self.model, len(strengths), concept.prompts
        threshold, window = self.threshold, (self.warmup, self.cooldown)
        if isinstance(concept, MaskedConcept):
            threshold = threshold if concept.threshold is None else concept.threshold
            window = window if concept.window is None else concept.window
        if not 0 <= threshold < 1:
            raise BadInput(
                f"a concept's threshold must be 0 or more and below 1, got {threshold}: it is the "
                f"share of the image that a mask leaves out"
            )
        n = model.grid(self.steps).n
        says = torch.tensor([bool(prompt) for prompt in prompts]).repeat_interleave(s)
        scale = concept.weight * strengths.repeat(len(prompts)) * says
        region = concept.region
        if region is not None:
            size = model.latent_shape[-2:]
            region = interpolate(region[:, None], size, mode="area").repeat_interleave(s, 0)
        return Guide(
            captioned(model, prompts).repeat(s),
            scale.to(model.device),
            threshold,
            self._window(window, self.start(n), n),
            None if region is None else region.to(model.device),
            self._words(prompts, s) if self.masks == "both" else None,
        )

    def _window(self, window: Window, start: int, n: int) -> range:
        """Return the steps, of those from `start` to n, that lie in a window."""
        first, last = (start + whole_steps(share, n - start) for share in window)
        if first >= last:
            raise BadInput(
                f"guidance from the share {window[0]} to {window[1]} of {n - start} steps acts in "
                f"none of them; lower method.warmup, or raise method.cooldown or method.steps"
            )
        return range(first, last)

    def _words(self, prompts: Sequence[str], times: int) -> Float[Tensor, "r m"]:
        """Return 1 at the tokens of each prompt's words, each row `times` times."""
        rows = []
        for prompt in prompts:
            words = range(len(words_of(prompt)))
            if prompt and not words:
                raise BadInput(
                    f"the caption {prompt!r} has no word that attention could be read of; give "
                    f"words, or set method.masks=prediction"
                )
            rows.append(places_of(self.model.prompt_tokens(prompt), words))
        return torch.stack(rows).repeat_interleave(times, 0).to(self.model.device)

    def _terms(
        self,
        model: DiffusionModel,
        latent: Latent,
        target: tuple[str, ...] | None,
        strengths: Float[Tensor, " s"],
    ) -> tuple[Term, ...]:
        """Return the empty condition, which the images are inverted under."""
        return plain(model.unconditional(len(latent) * len(strengths)))


class SecondOrder(Intervention):
    """Turns the stochastic sampler (eta 1), which is SDE-DPM-Solver++ of first order, into 2M."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def prediction(self, step: Step, x: Tensor, x0: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Keep x0 of this step and of the one before."""
        self.seen = [*self.seen[-1:], x0]
        return x0, eps

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        """Add the second-order part, from the second step on."""
        if len(self.seen) == 1:
            return x
        return x + second_order(step.grid, step.index) * (self.seen[1] - self.seen[0])


def second_order(grid: Grid, i: int) -> float:
    """Return the factor of the change of x0 in the step from level i: alpha' (1 - e^-2h) h / 2h'.

    "DPM-Solver++", SDE variant of 2M, with h the step in log(alpha / sigma) and h' the one before;
    0 where either is infinite: at a level without noise, or without signal.
    """
    h, before = (
        _log_ratio(grid, i + 1) - _log_ratio(grid, i),
        _log_ratio(grid, i) - _log_ratio(grid, i - 1),
    )
    if math.isinf(h) or math.isinf(before):
        return 0.0
    return float(grid.alpha[i + 1]) * (1 - math.exp(-2 * h)) * h / (2 * before)


def _log_ratio(grid: Grid, i: int) -> float:
    """Return log(alpha / sigma) of a level."""
    alpha, sigma = float(grid.alpha[i]), float(grid.sigma[i])
    if alpha == 0 or sigma == 0:
        return -math.inf if alpha == 0 else math.inf
    return math.log(alpha / sigma)


def words_of_edit(batch: Batch, edit: Edit) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return each image's words before and after the edit: its own, or where captions differ.

    Example:
        >>> batch = Batch(("a",), torch.zeros(1, 3, 8, 8), ("a bareheaded man",))
        >>> words_of_edit(batch, Edit("hat+", target_prompts=("a man in a hat",)))
        (('bareheaded',), ('in a hat',))
    """
    if edit.words is not None:
        return (edit.words[0],) * len(batch), (edit.words[1],) * len(batch)
    assert batch.prompts is not None and edit.target_prompts is not None
    pairs = list(zip(batch.prompts, edit.target_prompts, strict=True))
    return (
        tuple(_differing(ours, theirs) for ours, theirs in pairs),
        tuple(_differing(theirs, ours) for ours, theirs in pairs),
    )


def _differing(prompt: str, other: str) -> str:
    """Return the words of a prompt that the other has not."""
    words = words_of(prompt)
    return " ".join(words[k] for k in changed_words(prompt, other))
