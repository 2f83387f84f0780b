"""Attend-and-Excite and CONFORM: the noisy latent is moved until the prompt's words have places."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, pad, softplus

from latentbench.bounds import Guidance, Positive, Share, Steps, between
from latentbench.errors import BadInput
from latentbench.model import AttentionCall, Condition, DiffusionModel
from latentbench.parameterization import whole_steps
from latentbench.prompt_tokens import words_of
from latentbench.sampling.loop import Intervention, Step, Term, denoise, plain
from latentbench.types import Capability, Concept, Space
from methods.editing.prompt_to_prompt import maps_of
from methods.generation.composed import ComposedDiffusion

LARGEST, COARSE = 1024, 256  # places of the maps that are read at all, and of those that count
SIGMA = 0.5  # of the 3 x 3 Gaussian that maps are smoothed with
NOWHERE = -1e4  # a logit of what takes no part

Loss = Callable[[Tensor, Tensor | None], Tensor]  # maps, those of the step before -> each image's


class TokenMaps(Intervention):
    """How much each place of the image reads each token: the mean over heads and layers.

    Args:
        largest: places of a map above which its layer is left out; None leaves out no layer.
    """

    def __init__(self, largest: int | None = LARGEST) -> None:
        self.largest = math.inf if largest is None else largest
        self.found: dict[int, list[Tensor]] = {}

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Keep the maps of a layer that is not too large; change nothing."""
        image = call.key.shape[2] - call.text
        places = image or call.query.shape[2]
        if not call.text or places > self.largest:
            return None
        kept = self.kept(call.query[:, :, :places], call.key, call.scale, image)
        self.found.setdefault(places, []).append(kept)
        return call

    def kept(
        self,
        query: Float[Tensor, "r h p d"],
        key: Float[Tensor, "r h m d"],
        scale: float,
        image: int,
    ) -> Tensor:
        """Return what is kept of a layer: its maps.

        Args:
            query: of the image's places.
            key: of all tokens, the image's first.
            scale: factor on the dot product before the softmax.
            image: how many tokens are the image's.
        """
        return maps_of(query, key, scale)[..., image:]

    def mean(self) -> Float[Tensor, "b p m"]:
        """Return the maps of the largest size of at most 16 x 16."""
        size = max((n for n in self.found if n <= COARSE), default=min(self.found))
        return torch.cat(self.found[size], 1).mean(1)


@dataclass(frozen=True)
class Refinement:
    """When the latent is moved, and how far.

    Args:
        steps: how many steps, the noisiest, it is moved in.
        scale: length of a move; it falls with the square root of the time to 0.7 of it.
        targets: step -> loss above which an image is moved again in that step.
        moves: how often at most.
    """

    steps: int
    scale: float
    targets: Mapping[int, float]
    moves: int


class MovedLatent(Intervention):
    """Moves x_t down the gradient of a loss on the attention maps of one condition.

    Args:
        model: the denoiser.
        condition: what the maps are of.
        loss: of the maps.
        how: when and how far.
    """

    def __init__(
        self, model: DiffusionModel, condition: Condition, loss: Loss, how: Refinement
    ) -> None:
        self.model, self.condition, self.loss, self.how = model, condition, loss, how
        self.before: Tensor | None = None  # maps of the step before
        self.losses: dict[int, Float[Tensor, " b"]] = {}  # of each step, before its last move

    def active(self, step: Step) -> bool:
        """Return whether the step is one of the first."""
        return step.index < self.how.steps

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        """Return x_t, moved."""
        eta = self.how.scale * math.sqrt(1 - 0.5 * step.index / max(step.n - 1, 1))
        target = self.how.targets.get(step.index, math.inf)
        losses, slope, maps = self._evaluate(step, x)
        for _ in range(self.how.moves):
            moving = losses > target
            if not bool(moving.any()):
                break
            x = torch.where(moving.reshape(-1, *[1] * (x.dim() - 1)), x - eta * slope, x)
            losses, slope, maps = self._evaluate(step, x)
        self.losses[step.index], self.before = losses, maps
        return x - eta * slope

    def _evaluate(self, step: Step, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each image's loss at x, its gradient, and the maps."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            found = TokenMaps()
            denoise(
                self.model, x, plain(self.condition), grid=step.grid, level=step.level,
                interventions=[found],
            )  # fmt: skip
            maps = found.mean()
            losses = self.loss(maps, self.before)
            (slope,) = torch.autograd.grad(losses.sum(), x)
        return losses.detach(), slope, maps.detach()


class AttentionGuidance(ComposedDiffusion, ABC):
    """Samples one prompt of all concepts, and moves x_t so that each word has a place.

    Concepts of positive weight are joined to one prompt, in their order; those of negative weight
    stay terms of their own, as in `composed`. Of an image in which no step is needed any more, no
    step is taken (the published loops take one more); words are found by the tokenizer's offsets,
    and only their tokens take part (there the end and padding tokens do as well); maps are smoothed
    by a Gaussian of the stated sigma .5 (the filter of the published code is one of .71); joint
    attention is the suite's own.
    """

    small: ClassVar[Mapping[str, int]] = {"moves": 1}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        verb: frozenset({Space.NOISE, Space.TEXT, Space.TOKEN_MAPS})
        for verb in ("compose", "mixture")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.PROMPTS}) for verb in ("compose", "mixture")
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        scale: Positive = 20.0,
        guided_share: Share = 0.5,
        moves: Annotated[int, between(0, 1000)] = 20,
    ) -> None:
        super().__init__(steps=steps, guidance=guidance)
        self.scale, self.guided_share, self.moves = scale, guided_share, moves

    @abstractmethod
    def loss(self, groups: Int[Tensor, "b m"]) -> Loss:
        """Return the loss of maps whose tokens belong to these groups, -1 to none."""

    @abstractmethod
    def targets(self) -> Mapping[float, float]:
        """Return share of the steps -> loss above which an image is moved again there."""

    def terms(self, concepts: Sequence[Concept], rows: int) -> Sequence[Term]:
        """Return the null branch, that of the joined prompt, and those of negated concepts."""
        asked, negated = _sides(concepts)
        weight = sum(one.weight for one in asked) / len(asked)
        return super().terms([Concept(joined(asked), weight), *negated], rows)

    def interventions(
        self, ids: Sequence[str], concepts: Sequence[Concept]
    ) -> Sequence[Intervention]:
        """Return what moves x_t."""
        model, n = self.model, self.model.grid(self.steps).n
        asked, _ = _sides(concepts)
        prompts = joined(asked)
        loss = self.loss(self.groups(asked).to(model.device))
        targets = {whole_steps(share, n): target for share, target in self.targets().items()}
        how = Refinement(whole_steps(self.guided_share, n), self.scale, targets, self.moves)
        return [MovedLatent(model, model.condition(prompts, len(ids)), loss, how)]

    def groups(self, concepts: Sequence[Concept]) -> Int[Tensor, "b m"]:
        """Return which concept each token of the joined prompts is of, -1 where it is no word."""
        return tokens_of_concepts(self.model, concepts)


class AttendAndExcite(AttentionGuidance):
    """Moves x_t until the word that is seen least has a place.

    Source: "Attend-and-Excite: Attention-Based Semantic Guidance for Text-to-Image Diffusion
    Models", section 4: L = max over words of 1 - max over places of the smoothed map of the word,
    after softmax(100 A) over words. In steps at 0, .2 and .4 of the way an image is moved until L
    is below .95, .5 and .2. See `AttentionGuidance` for deviations.

    Args:
        steps: sampling steps; default: the model's.
        guidance: scale of all weights; default: the model's guidance.
        scale: length of a move.
        guided_share: share of the steps, the noisiest, in which x_t is moved.
        moves: further moves in the steps with a target, at most.

    Example:
        >>> method = AttendAndExcite(scale=20.0)
        >>> # method.compose(("a",), [Concept(("a cat",)), Concept(("a red hat",))])
    """

    paper = "Attend-and-Excite: Attention-Based Semantic Guidance, section 4"

    def targets(self) -> Mapping[float, float]:
        """Return the published targets."""
        return {0.0: 0.95, 0.2: 0.5, 0.4: 0.2}

    def loss(self, groups: Int[Tensor, "b m"]) -> Loss:
        """Return how little the word is seen that is seen least."""
        words = (groups >= 0)[:, None]

        def neglect(maps: Tensor, before: Tensor | None) -> Float[Tensor, " b"]:
            del before
            seen = (100 * maps).masked_fill(~words, NOWHERE).softmax(-1)
            best = smoothed(seen).amax(1)
            return (1 - best).masked_fill(~words[:, 0], 0).amax(1)

        return neglect


class Conform(AttentionGuidance):
    """Moves x_t so that words of one concept share their places, and those of others do not.

    Source: "CONFORM: Contrast is All You Need For High-Fidelity Text-to-Image Diffusion Models",
    section 3: NT-Xent, the mean of -log e^s_ap / (e^s_ap + sum_n e^s_an) over positive pairs,
    where s are cosines of the smoothed maps of words over a temperature, p the words of one concept
    with a, and n those of others; the maps of the step before take part as constants. In steps at
    0, .2 and .4 of the way x_t is moved `moves` times more. No softmax over words, as in the
    authors' notebook. See `AttentionGuidance` for deviations.

    Args:
        steps: sampling steps; default: the model's.
        guidance: scale of all weights; default: the model's guidance.
        scale: length of a move.
        temperature: tau of NT-Xent.
        guided_share: share of the steps, the noisiest, in which x_t is moved.
        moves: further moves in three of the steps.

    Example:
        >>> method = Conform(temperature=0.5)
        >>> # method.compose(("a",), [Concept(("green glasses",)), Concept(("a yellow clock",))])
    """

    paper = "CONFORM: Contrast is All You Need For High-Fidelity Text-to-Image Models, section 3"

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        scale: Positive = 20.0,
        temperature: Positive = 0.5,
        guided_share: Share = 0.5,
        moves: Annotated[int, between(0, 1000)] = 20,
    ) -> None:
        super().__init__(
            steps=steps, guidance=guidance, scale=scale, guided_share=guided_share, moves=moves
        )
        self.temperature = temperature

    def targets(self) -> Mapping[float, float]:
        """Return where x_t is moved more than once, whatever the loss."""
        return {0.0: -math.inf, 0.2: -math.inf, 0.4: -math.inf}

    def loss(self, groups: Int[Tensor, "b m"]) -> Loss:
        """Return the contrast of concepts."""

        def contrast(maps: Tensor, before: Tensor | None) -> Float[Tensor, " b"]:
            both = [maps] if before is None else [maps, before]
            vectors = torch.cat([smoothed(m) for m in both], 2).transpose(1, 2)
            return nt_xent(vectors, groups.repeat(1, len(both)), self.temperature)

        return contrast


def nt_xent(
    vectors: Float[Tensor, "b t d"], groups: Int[Tensor, "b t"], temperature: float
) -> Float[Tensor, " b"]:
    """Return the mean of -log e^s_ap / (e^s_ap + sum_n e^s_an) over positive pairs of each row.

    s are cosines over the temperature, n the vectors of other groups; -1 is no group. A row
    without positive pairs has 0.

    Example:
        >>> v = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
        >>> round(float(nt_xent(v, torch.tensor([[0, 0, 1]]), 1.0)), 3)  # log(1 + e^-1)
        0.313
    """
    s = cosine_similarity(vectors[:, :, None], vectors[:, None], -1) / temperature
    known = (groups >= 0)[:, :, None] & (groups >= 0)[:, None]
    same = groups[:, :, None] == groups[:, None]
    others = s.masked_fill(~(known & ~same), NOWHERE).logsumexp(-1, keepdim=True)
    own = torch.eye(groups.shape[1], dtype=torch.bool, device=groups.device)
    positive = (known & same & ~own).to(s)
    return (positive * softplus(others - s)).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1)


def smoothed(maps: Float[Tensor, "b p m"]) -> Float[Tensor, "b p m"]:
    """Return square maps after a 3 x 3 Gaussian with reflected borders."""
    side = round(maps.shape[1] ** 0.5)
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0]) ** 2) / (2 * SIGMA**2)).to(maps)
    kernel = torch.outer(line, line) / line.sum() ** 2
    square = pad(maps.transpose(1, 2).unflatten(2, (side, side)), (1, 1, 1, 1), mode="reflect")
    rows, columns = square.shape[:2]
    flat = torch.nn.functional.conv2d(square.flatten(0, 1)[:, None], kernel[None, None])
    return flat.unflatten(0, (rows, columns)).flatten(2).transpose(1, 2)


def tokens_of_concepts(model: DiffusionModel, concepts: Sequence[Concept]) -> Int[Tensor, "b m"]:
    """Return which concept each token of the joined prompts is of, -1 where it is no word."""
    rows = []
    for prompts in zip(*(one.prompts for one in concepts), strict=True):
        owner = [k for k, prompt in enumerate(prompts) for _ in words_of(prompt)]
        tokens = model.prompt_tokens(" ".join(prompts))
        rows.append([-1 if w is None else owner[w] for part in tokens for w in part.words])
    return torch.tensor(rows)


def joined(concepts: Sequence[Concept]) -> tuple[str, ...]:
    """Return one prompt per image: those of the concepts, in their order."""
    return tuple(" ".join(prompts) for prompts in zip(*(c.prompts for c in concepts), strict=True))


def _sides(concepts: Sequence[Concept]) -> tuple[list[Concept], list[Concept]]:
    """Return the concepts that are asked for, and those that are negated.

    Raises:
        BadInput: none is asked for, or one has a region.
    """
    if any(one.region is not None for one in concepts):
        raise BadInput("a concept has a region, which one prompt cannot have; use method=composed")
    asked = [one for one in concepts if one.weight > 0]
    if not asked:
        raise BadInput("no concept has a weight above 0; ask for at least one")
    return asked, [one for one in concepts if one.weight <= 0]
