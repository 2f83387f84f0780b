"""SuppressEOT: words are taken out by weakening what the end of the prompt holds of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from latentbench.bounds import (
    Guidance,
    Name,
    NotNegative,
    Positive,
    Share,
    Steps,
    between,
    not_empty,
)
from latentbench.errors import BadInput
from latentbench.model import AttentionCall, Condition, Convention
from latentbench.parameterization import whole_steps
from latentbench.sampling.loop import Intervention, Step, Term, denoise, generate, plain
from latentbench.types import Batch, Edit, Latent, Space
from methods.editing.alignment import changed_words, numbers_of
from methods.editing.coupled import rows_of
from methods.editing.prompt_to_prompt import maps_of
from methods.inversion.null_text import TOKENS, NullText, StepNull, with_tokens

LARGEST, COARSE = 1024, 256  # places of the maps that are read at all, and of those that count
MASKED = (0.85, 0.95)  # where a dropped and a kept word is, as a share of its map's maximum


@dataclass(frozen=True)
class Places:
    """Which tokens of each prompt are which.

    Args:
        dropped: those of the words to take out.
        kept: those of the other words.
        padding: the end of the prompt and what follows it.
    """

    dropped: Bool[Tensor, "b m"]
    kept: Bool[Tensor, "b m"]
    padding: Bool[Tensor, "b m"]

    def repeat(self, times: int) -> "Places":
        """Return each row `times` times, neighbours together."""
        return Places(
            *(v.repeat_interleave(times, 0) for v in (self.dropped, self.kept, self.padding))
        )


class MeanMaps(Intervention):
    """Attention maps of the conditional branch, layers of one size and their heads averaged."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, bool], list[Tensor]] = {}

    def attention(self, step: Step, call: AttentionCall) -> AttentionCall | None:
        """Keep the maps of a layer that is not too large; change nothing."""
        places, rows = call.query.shape[2], rows_of(step, call, "condition")
        if places > LARGEST:
            return None
        maps = maps_of(call.query[rows], call.key[rows], call.scale)
        self.found.setdefault((places, call.text > 0), []).append(maps)
        return call

    def maps(self) -> tuple[Float[Tensor, "b p m"], Float[Tensor, "b p p"]]:
        """Return maps over tokens and over places, of the largest size of at most 16 x 16."""
        sizes = {places for places, _ in self.found}
        size = max((n for n in sizes if n <= COARSE), default=min(sizes))
        cross, own = (torch.cat(self.found[size, kind], 1).mean(1) for kind in (True, False))
        return cross, own


class SuppressEOT(NullText):
    """Weakens the rows of unwanted words and of the prompt's end, then pushes attention maps apart.

    Source: "Get What You Want, Not What You Don't: Image Content Suppression for Text-to-Image
    Diffusion Models", section 3. chi holds the embeddings of the unwanted words and of the end and
    padding tokens, which a causal text encoder fills with all words before them. From step
    tau_0 T on, each singular value s of chi becomes s exp(-alpha s) (equation 4); until step
    `until` T, the embedding then takes gradient steps that keep the maps of the other words near
    those of the source and push those of the unwanted words away (equations 5 to 7). The source is
    null-text inversion's reconstruction, and the edit goes by its null embeddings.

    The strength lambda moves the embedding, c + lambda (c^ - c), and scales the gradient steps: 0
    is the reconstruction, 1 the published edit. The words are those that the target prompt lacks,
    or `words`.

    Deviations: distances are cosines and maps over places take part, as in the authors' code (the
    paper has squared errors of maps over words); all heads take part (of the edited image, there
    only the first half); a word's region is found at the map's own resolution, there through 256
    pixels; its distances are averaged over the region, there summed. As there, each step starts
    from c^ again. Strengthening and removal of single singular values are not here; a pooled
    embedding (SDXL) stays that of the whole prompt.

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while inverting.
        guidance: guidance scale w.
        iterations: null-text inversion's Adam steps per sampling step, at most.
        learning_rate: of null-text inversion.
        tolerance: of null-text inversion.
        words: words to take out, those of them that a prompt has; default: see above.
        alpha: decay alpha of the singular values.
        relative: alpha is given as a multiple of one over the largest singular value.
        padding: whether chi holds the end and padding tokens.
        start: share tau_0 of the steps that are left as they are, which keeps the layout.
        until: share of the steps before which gradient steps are taken.
        updates: gradient steps per sampling step.
        rate: length eta of a gradient step, which falls with the square root of the time.
        keep: weight of the kept words' distances.
        drop: weight of the unwanted words' distances.
        max_strength: largest lambda of a benchmark's curve.

    Raises:
        BadInput: there is nothing to take out of a prompt.

    Example:
        >>> editor = SuppressEOT(words=["glasses"])  # editor.edit(batch, edit, torch.ones(1))
    """

    paper = "Get What You Want, Not What You Don't: Image Content Suppression, section 3"
    small: ClassVar[Mapping[str, int]] = {"iterations": 1, "updates": 1}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE, Space.TEXT}),
        "edit": frozenset({Space.NOISE, Space.TEXT, Space.ATTENTION, Space.TOKEN_MAPS}),
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
        words: Annotated[Sequence[Name], not_empty] | None = None,
        alpha: NotNegative = 1.0,
        relative: bool = False,
        padding: bool = True,
        start: Share = 0.2,
        until: Share = 0.4,
        updates: Annotated[int, between(0, 1000)] = 10,
        rate: Positive = 5.0,
        keep: NotNegative = 1.0,
        drop: NotNegative = 0.5,
        max_strength: Positive = 1.0,
    ) -> None:
        super().__init__(
            steps=steps, convention=convention, guidance=guidance, iterations=iterations,
            learning_rate=learning_rate, tolerance=tolerance, max_strength=max_strength,
        )  # fmt: skip
        self.words, self.alpha, self.relative, self.padding = words, alpha, relative, padding
        self.start, self.until, self.updates, self.rate = start, until, updates, rate
        self.keep, self.drop = keep, drop

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images without the unwanted words."""
        assert batch.prompts is not None and edit.target_prompts is not None
        model, grid, b, s = self.model, self.model.grid(self.steps), len(batch), len(strengths)
        places = self.places(batch.prompts, edit.target_prompts)
        latent, told = self.invert(batch), model.condition(batch.prompts, b)
        first, last = (whole_steps(share, grid.n) for share in (self.start, self.until))
        last = max(first, last if self.updates else 0)
        source = self._sample(latent.parts[Space.NOISE], latent, told, 0, first)
        x, weight = source.repeat_interleave(s, 0), strengths.repeat(b).to(source)
        whole, groups = told.repeat(s), places.repeat(s)
        chi = groups.dropped | (groups.padding & self.padding)
        c = whole.tensors[TOKENS]
        c = c + weight[:, None, None] * (self.regularised(c, chi) - c)
        for i in range(first, last):
            theirs = MeanMaps()
            source = self._sample(source, latent, told, i, i + 1, [theirs])
            goal = tuple(maps.repeat_interleave(s, 0) for maps in theirs.maps())
            eta = weight * self.rate * math.sqrt(1 - 0.9 * i / max(grid.n - 1, 1))
            pushed = self._pushed(x, i, with_tokens(whole, c), goal, groups, eta)
            x = self._sample(x, latent, pushed, i, i + 1)
        z0 = self._sample(x, latent, with_tokens(whole, c), last, grid.n)
        return model.decode(z0).unflatten(0, (b, s))

    def places(self, sources: Sequence[str], targets: Sequence[str]) -> Places:
        """Return which tokens of the source prompts are unwanted, kept, and padding."""
        rows = []
        for source, target in zip(sources, targets, strict=True):
            tokens = self.model.prompt_tokens(source)[0]
            unwanted = set(
                changed_words(source, target)
                if self.words is None
                else numbers_of(source, self.words)
            )
            if not unwanted:
                missing = (
                    f"{target!r} has all its words"
                    if self.words is None
                    else f"it has none of method.words={list(self.words)}"
                )
                raise BadInput(
                    f"there is nothing to take out of {source!r}: {missing}; name words of the "
                    f"prompts in method.words, or ask for edits that take a word out"
                )
            inside = torch.arange(len(tokens))
            dropped = torch.tensor([word in unwanted for word in tokens.words])
            padding = inside >= tokens.count - 1
            rows.append((dropped, ~dropped & ~padding & (inside > 0), padding))
        device = self.model.device
        return Places(*(torch.stack(part).to(device) for part in zip(*rows, strict=True)))

    def regularised(
        self, c: Float[Tensor, "b m d"], chi: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b m d"]:
        """Return the embeddings with the singular values of the rows chi made s exp(-alpha s)."""
        made = c.clone()
        for row, own in zip(made, chi, strict=True):
            U, S, V = torch.linalg.svd(row[own].double(), full_matrices=False)
            alpha = self.alpha / float(S[0]) if self.relative else self.alpha
            row[own] = ((U * (S * torch.exp(-alpha * S))) @ V).to(row)
        return made if self.alpha else c

    def _sample(
        self,
        x: Float[Tensor, "r ..."],
        latent: Latent,
        condition: Condition,
        start: int,
        stop: int,
        interventions: Sequence[Intervention] = (),
    ) -> Float[Tensor, "r ..."]:
        """Return x at level `stop`, guided away from the latent's null embeddings."""
        nulls = latent.parts[Space.TEXT]
        nulls = nulls.repeat_interleave(len(x) // len(nulls), 0)
        null = StepNull(self.model.unconditional(len(x)), nulls, 1 - self.guidance)
        return generate(
            self.model, x, [Term("condition", condition, self.guidance)],
            grid=self.model.grid(self.steps), start=start, stop=stop,
            interventions=[null, *interventions],
        )  # fmt: skip

    def _pushed(
        self,
        x: Float[Tensor, "r ..."],
        i: int,
        condition: Condition,
        goal: tuple[Tensor, ...],
        places: Places,
        eta: Float[Tensor, " r"],
    ) -> Condition:
        """Return the condition after its gradient steps."""
        c = condition.tensors[TOKENS]
        for _ in range(self.updates):
            with torch.enable_grad():
                c = c.detach().requires_grad_()
                maps, told = MeanMaps(), plain(with_tokens(condition, c))
                grid = self.model.grid(self.steps)
                denoise(self.model, x, told, grid=grid, level=i, interventions=[maps])
                loss = self.loss(goal, maps.maps(), places).sum()  # each row has its own c
            (slope,) = torch.autograd.grad(loss, c)
            c = c.detach() - eta[:, None, None] * slope
        return with_tokens(condition, c.detach())

    def loss(
        self, source: tuple[Tensor, ...], own: tuple[Tensor, ...], places: Places
    ) -> Float[Tensor, " r"]:
        """Return keep L_pl + drop L_nl of each row.

        Args:
            source: maps of the source over tokens ``[r, p, m]`` and over places ``[r, p, p]``.
            own: those of the edited image.
            places: which tokens are which.
        """
        words, columns = (1 - cosine_similarity(a, b, 1) for a, b in zip(source, own, strict=True))
        top = source[0].amax(1, keepdim=True)
        total = words.new_zeros(len(words))
        for group, weight, share in (
            (places.dropped, -self.drop, MASKED[0]),
            (places.kept, self.keep, MASKED[1]),
        ):
            region = (source[0] >= share * top).to(words)  # [r, p, m]
            around = torch.einsum("rpm,rp->rm", region, columns) / region.sum(1)
            total = total + weight * (group * (words + around)).sum(1)
        return total
