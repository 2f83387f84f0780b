"""Concept distillation: find a concept by attention, repaint it as what is there without it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from sklearn.mixture import GaussianMixture
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import (
    Count,
    Guidance,
    Name,
    Positive,
    Share,
    Steps,
    above,
    at_most,
    below,
    between,
    matches,
)
from latentbench.content import content_hash
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput, unknown
from latentbench.model import Condition, LowRank
from latentbench.parameterization import prediction_error, whole_steps
from latentbench.prompt_tokens import words_of
from latentbench.sampling.blending import KeepOutside
from latentbench.sampling.loop import denoise, generate, guided, noise_to_level, plain
from latentbench.types import Batch, Capability, Edit, Space
from methods.directions.adapters import EVERY, Adapted, first_down, layers_of
from methods.directions.fit_images import refuse_too_few
from methods.editing.alignment import numbers_of, places_of
from methods.editing.prompt_to_prompt import maps_of
from methods.editing.steps_back import MaskingEditor
from methods.generation.attention_guidance import TokenMaps

ENCODED = 32  # images of one call of the encoder
POOL = 16  # captions that are looked at, for each image of a fit
SIDE = 64  # cells on a side of the published latents, which the limits of rectangles are of
SMALLEST, LEAST, MOST = 10, 16**2, 32**2  # sides are above it; areas from and to, in cells
BACKGROUND = 2 / 3  # of a rectangle's area that has to be background
TRIES = 100  # rectangles that are drawn at most
ENTRIES = 2**27  # of attention maps that are formed at once
DOWN, UP, WORDS = "down/", "up/", "words"  # what a state holds of an edit


class ConceptMaps(TokenMaps):
    """How much each place reads some tokens, their mean over heads, for each layer of any size.

    Of the maps, which large layers have gigabytes of, no more is formed at once than `ENTRIES`.

    Args:
        tokens: 1 at the tokens of each image that count.
    """

    def __init__(self, tokens: Float[Tensor, "b m"]) -> None:
        super().__init__(largest=None)
        self.tokens = tokens

    def kept(
        self,
        query: Float[Tensor, "b h p d"],
        key: Float[Tensor, "b h m d"],
        scale: float,
        image: int,
    ) -> Float[Tensor, "b p"]:
        """Return how much each place of a layer reads the tokens."""
        rows, heads, places = query.shape[:3]
        at_once = min(places, max(1, ENTRIES // (rows * heads * key.shape[2])))
        parts = []
        for some in query.split(at_once, 2):
            maps = maps_of(some, key, scale)[..., image:]
            parts.append(torch.einsum("bhpm,bm->bp", maps.to(self.tokens), self.tokens))
        return torch.cat(parts, 1) / (heads * self.tokens.sum(1)[:, None])


class ConceptDistillation(MaskingEditor):
    """Repaints where a concept is, by a model that was taught what is there without it.

    Source: "Foreground-Background Separation through Concept Distillation from Generative Image
    Foundation Models", sections 3.1 to 3.3. With x_t = alpha_t x_0 + sigma_t n:

        1. M(p)    = mean over layers, heads, levels t and draws n of A(x_t; c)[p, tokens of c]
        2. M_0     = [M > (m_1 + m_2) / 2],  m_1 and m_2 the means of a Gaussian mixture of M
        3. loss    = |eps(x_t; c) - n|^2 everywhere, or
                     |eps(x_t; background) - n|^2 in a random rectangle outside M_0
        4. x_{t-1} = M_0 step(x_t; background) + (1 - M_0) (alpha_{t-1} x_0 + sigma_{t-1} n)

    A are the maps of the concept's tokens under the prompt that names it, without guidance, at
    levels past the noisiest `skipped`; those of each layer are brought to the latents' size by
    nearest neighbours. Isolated cells of M_0 take their neighbours' majority. The fit is on images
    of c, of which half (`whole`) have the first loss. The edit starts from noise.

    An edit that takes something away repaints it under `background`; one that adds something
    repaints the place where the concept would be under its prompt. The strength is the share of
    the steps that are made again; 1, as published, starts from pure noise.
    Deviations: low-rank changes of all attention projections are trained instead of all weights,
    for each concept its own; levels are of the sampler's grid, one for all images of a step; the
    loss is averaged over the rectangle (there over all cells, so that small rectangles count
    less); limits of rectangles scale with the latents; the source is put back under one noise
    (there a fresh one each step). The refined mask and the segmentation network, which make no
    image, are not here.

    Args:
        template: prompt that names a concept, which stands for "{}".
        background: prompt of what is there without the concept.
        skipped: share of the levels, the noisiest, whose maps take no part.
        draws: noises of each level.
        mask: "own" M_0, or "given", the edit's, in the edit and never in the fit.
        images: of the generators' split, whose captions have the concept's word.
        batch: images of one step.
        iterations: optimiser steps; 0: the model as it is, the control.
        learning_rate: of AdamW.
        rank: of the low-rank changes.
        whole: share of the images that are learned as a whole, under the concept's prompt.
        guidance: scale away from the other of the two prompts.
        steps: sampling steps; default: the model's.
        max_strength: largest strength of a benchmark's curve.

    Raises:
        BadInput: a batch larger than the images.

    Example:
        >>> editor = ConceptDistillation(images=64)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = "Foreground-Background Separation through Concept Distillation, sections 3.1 to 3.3"
    version = 2
    small: ClassVar[Mapping[str, Any]] = {"images": 4, "batch": 2, "iterations": 2, "rank": 1}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT, Space.TOKEN_MAPS, Space.WEIGHTS})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.PROMPTS})}

    def __init__(
        self,
        *,
        template: Annotated[str, matches(r".*\{\}.*", "a prompt with {} in it")] = "{}",
        background: Name = "background",
        skipped: Annotated[Share, below(1)] = 0.2,
        draws: Count = 2,
        mask: Literal["own", "given"] = "own",
        images: Count = 64,
        batch: Count = 16,
        iterations: Annotated[int, between(0, 1_000_000)] = 200,
        learning_rate: Positive = 0.001,
        rank: Annotated[int, between(1, 1024)] = 4,
        whole: Share = 0.5,
        guidance: Guidance = 1.0,
        steps: Steps | None = None,
        max_strength: Annotated[float, above(0), at_most(1)] = 1.0,
    ) -> None:
        if batch > images:
            raise BadInput(f"a batch of {batch} is more than the {images} images")
        self.template, self.background = template, background
        self.skipped, self.draws, self.mask = skipped, draws, mask
        self.images, self.batch, self.iterations = images, batch, iterations
        self.learning_rate, self.rank, self.whole = learning_rate, rank, whole
        self.guidance, self.steps, self.max_strength = guidance, steps, max_strength
        self.changes_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse strengths of less than a step, and more images than there are."""
        super().check(data, steps, strengths)
        refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Teach the model each edit's concept, and what is there without it.

        Raises:
            BadInput: no edits, one that no word describes, or too few captions that have the word.
            Incompatible: the model has no such layers.
        """
        wordless = [f"edit {edit.name!r} has" for edit in edits if edit.words is None]
        if wordless or not edits:
            who = wordless[0] if wordless else "the benchmark announces no edits, which gives"
            raise BadInput(
                f"{who} no words for before and after, from which concept_distillation takes its "
                f"concept; take a data set and a benchmark that give them, such as "
                f"benchmark=attribute_editing of dataset=faces"
            )
        made: dict[str, dict[str, Tensor]] = {}
        self.changes_ = {}
        for edit in edits:
            assert edit.words is not None
            concept = edit.words[1] if edit.sign > 0 else edit.words[0]
            if concept not in made:
                made[concept] = self._learn(data, concept)
            told = {WORDS: torch.tensor(list(concept.encode()), dtype=torch.uint8)}
            self.changes_ |= {f"{edit.name}/{k}": v for k, v in (told | made[concept]).items()}

    def state(self) -> dict[str, Tensor]:
        """Return ``EDIT/down/LAYER`` ``[r, in]``, ``EDIT/up/LAYER`` ``[out, r]``, and its words."""
        return self.changes_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the changes back."""
        self.changes_ = {name: value.to(self.model.device) for name, value in state.items()}

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return one image per strength; strength 0 is decode(encode(image))."""
        model, grid, b = self.model, self.model.grid(self.steps), len(batch)
        own = {
            name.removeprefix(f"{edit.name}/"): value
            for name, value in self.changes_.items()
            if name.startswith(f"{edit.name}/")
        }
        if not own:
            known = {name.split("/")[0] for name in self.changes_}
            raise unknown("edit", edit.name, known)
        concepts = (bytes(own.pop(WORDS).tolist()).decode(),) * b
        x0 = model.encode(batch.images)
        noise = self.streams.normal("concept_distillation", batch.ids, x0.shape[1:], x0.device)
        mask = self.given_mask(edit, x0)
        if mask is None:
            mask = self.masks(batch, concepts)[:, None].to(x0)
        named = model.condition([self._named(concept) for concept in concepts], b)
        without = model.condition((self.background,) * b, b)
        pair = (named, without) if edit.sign > 0 else (without, named)
        changes = [self._adapted(own), KeepOutside(x0, noise, mask)]  # 4. after each step

        def from_level(start: int) -> Float[Tensor, "b 3 h w"]:
            if start == grid.n:
                return model.decode(x0)
            x = noise if start == 0 else noise_to_level(grid, x0, noise, start)
            terms = guided(*pair, self.guidance)
            z0 = generate(model, x, terms, grid=grid, start=start, interventions=changes)
            return model.decode(z0)

        return self.each(strengths, from_level)

    def masks(self, batch: Batch, concepts: Sequence[str]) -> Bool[Tensor, "b h w"]:
        """Return M_0 of a concept in each image, in the latents' resolution."""
        model, known = self.model, (self.template, self.skipped, self.draws, self.steps)
        key = content_hash(
            "concept_distillation", self.version, model.fingerprint(), batch.ids, batch.images,
            tuple(concepts), known, self.streams.seed,
        )  # fmt: skip
        made = self.cache.get_or_make("masks", key, lambda: {"maps": self.maps(batch, concepts)})
        return torch.stack([parted(one) for one in made["maps"]]).to(model.device)

    def maps(self, batch: Batch, concepts: Sequence[str]) -> Float[Tensor, "b h w"]:
        """Return how much each place reads the concept, averaged over levels and draws."""
        model, grid, b = self.model, self.model.grid(self.steps), len(batch)
        prompts = [self._named(concept) for concept in concepts]
        places = torch.stack([
            places_of(model.prompt_tokens(prompt), numbers_of(prompt, words_of(concept)))
            for prompt, concept in zip(prompts, concepts, strict=True)
        ]).to(model.device)  # fmt: skip
        told, x0 = plain(model.condition(prompts, b)), model.encode(batch.images)
        first = min(whole_steps(self.skipped, grid.n), grid.n - 1)
        side, total = x0.shape[-1], x0.new_zeros(b, *x0.shape[-2:])
        for level in range(first, grid.n):
            for draw in range(self.draws):
                stream = f"concept_distillation/maps/{level}/{draw}"
                noise = self.streams.normal(stream, batch.ids, x0.shape[1:], x0.device)
                read, x = ConceptMaps(places), noise_to_level(grid, x0, noise, level)
                denoise(model, x, told, grid=grid, level=level, interventions=[read])
                # 1. sum of the maps of c over levels and draws; `read` and `in_latents` take means
                total = total + in_latents(read.found, side)
        return total / ((grid.n - first) * self.draws)

    def losses(
        self,
        own: Mapping[str, Tensor],
        z0: Float[Tensor, "b c h w"],
        told: Condition,
        counted: Bool[Tensor, "b h w"],
        draw: str,
    ) -> Float[Tensor, " b"]:
        """Return each image's mean squared error where it counts, at one level.

        That of what the network predicts.

        Args:
            own: the changes of one concept.
            z0: clean latents.
            told: what the network receives.
            counted: where the loss is taken.
            draw: name of what is drawn: the level, and the images' noise.
        """
        grid = self.model.grid(self.steps)
        level = int(torch.randint(grid.n, (), generator=self.streams.generator(draw, "level")))
        rows = [str(row) for row in range(len(z0))]
        eps = self.streams.normal(f"{draw}/noise", rows, z0.shape[1:], z0.device)
        x = noise_to_level(grid, z0, eps, level)
        at = {"grid": grid, "level": level, "interventions": [self._adapted(own)]}
        found, levels = denoise(self.model, x, plain(told), **at), grid.levels(level, z0)
        # 3. the squared error, averaged over the cells that count
        error = prediction_error(self.model.prediction_type, found, (z0, eps), *levels)
        error = error.square().mean(1)
        return (error * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)

    def _learn(self, data: Dataset, concept: str) -> dict[str, Tensor]:
        """Return the changes that teach one concept."""
        own = {name: value.to(self.model.device) for name, value in self._first().items()}
        if not self.iterations:
            return own
        z0, inside = self._examples(data, concept)
        named, stream = self._named(concept), f"concept_distillation/{concept}"
        adamw = torch.optim.AdamW([v.requires_grad_() for v in own.values()], self.learning_rate)
        for step in self.fitting.steps(
            f"concept_distillation-{concept}", self.iterations, own, adamw
        ):
            draw = f"{stream}/{step}"
            rows = self.streams.choice(f"{draw}/images", self.images, self.batch)
            coins = torch.rand(len(rows), generator=self.streams.generator(draw, "coins"))
            whole = (coins < self.whole).tolist()
            generator = self.streams.generator(draw, "rectangles")
            counted = torch.stack([
                torch.ones_like(inside[row]) if one else rectangle(inside[row], generator)
                for row, one in zip(rows, whole, strict=True)
            ])  # fmt: skip
            prompts = [named if one else self.background for one in whole]
            told = self.model.condition(prompts, len(rows))
            adamw.zero_grad()
            self.losses(own, z0[rows], told, counted.to(z0.device), draw).mean().backward()
            adamw.step()
        return {name: value.detach() for name, value in own.items()}

    def _examples(
        self, data: Dataset, concept: str
    ) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, "n h w"]]:
        """Return clean latents of images of a concept, and where it is in them.

        Nowhere, where all images are learned as a whole.

        Raises:
            BadInput: too few captions have the concept's words.
        """
        size, words = data.size("generator"), words_of(concept)
        pool = self.streams.choice("fit/images", size, min(size, POOL * self.images))
        captions = data.describe("generator", pool).prompts
        assert captions is not None
        shown = [
            k
            for k, text in zip(pool, captions, strict=True)
            if {w.lower() for w in words} <= {w.lower() for w in words_of(text)}
        ]
        if len(shown) < self.images:
            raise BadInput(
                f"{len(shown)} of {len(pool)} captions of the split 'generator' name "
                f"{concept!r}, method.images={self.images} are asked for; lower method.images"
            )
        latents, inside = [], []
        with torch.no_grad():
            for index, kept in even_batches(self.images, ENCODED):
                batch = data.batch("generator", [shown[k] for k in index])
                z0 = self.model.encode(batch.images)
                found = torch.zeros_like(z0[:, 0], dtype=torch.bool)
                if self.whole < 1:
                    found = self.masks(batch, (concept,) * len(batch))
                latents.append(z0[:kept])
                inside.append(found[:kept])
        return torch.cat(latents), torch.cat(inside).cpu()

    def _first(self) -> dict[str, Tensor]:
        """Return changes that change nothing yet."""
        layers = layers_of(self.model, EVERY)
        down = first_down(layers, 1, self.rank, self.streams, "concept_distillation/down")
        found = {DOWN + name: value[0] for name, value in down.items()}
        return found | {UP + n: torch.zeros(out, self.rank) for n, (_, out) in layers.items()}

    def _named(self, concept: str) -> str:
        return self.template.replace("{}", concept)

    def _adapted(self, own: Mapping[str, Tensor]) -> Adapted:
        names = [name.removeprefix(DOWN) for name in own if name.startswith(DOWN)]
        return Adapted({n: LowRank(own[DOWN + n][None], own[UP + n][None]) for n in names})


def in_latents(
    found: Mapping[int, Sequence[Float[Tensor, "b p"]]], side: int
) -> Float[Tensor, "b h w"]:
    """Return the mean of all layers' maps in the latents' size.

    Args:
        found: maps by number of places.
        side: cells on a side of the latents.
    """
    layers = []
    for count, maps in found.items():
        own = round(count**0.5)
        for one in maps:
            square = one.unflatten(1, (own, own))[:, None]
            layers.append(F.interpolate(square, size=(side, side), mode="nearest")[:, 0])
    return torch.stack(layers).mean(0)


def parted(values: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Return what is above the mean of a Gaussian mixture's two means; lone cells follow the rest.

    A cell that is not at the border becomes what most of its 3 x 3 neighbourhood is.

    Example:
        >>> values = torch.zeros(6, 6)
        >>> values[1:4, 1:4], values[4, 5] = 1.0, 1.0
        >>> int(parted(values).sum())
        6
    """
    flat = values.double().cpu().flatten().numpy()
    if np.ptp(flat) == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    scaled = ((flat - flat.min()) / np.ptp(flat))[:, None]
    # 2. M_0 = [M > (m_1 + m_2) / 2], then the majority of 3 x 3 cells
    means: Any = GaussianMixture(2, random_state=0).fit(scaled).means_
    inside = torch.from_numpy(scaled[:, 0] > means.mean()).reshape(values.shape)
    share = F.avg_pool2d(inside[None, None].double(), 3, stride=1)[0, 0]
    inside[1:-1, 1:-1] = share >= 0.5
    return inside.to(values.device)


def rectangle(inside: Bool[Tensor, "h w"], generator: torch.Generator) -> Bool[Tensor, "h w"]:
    """Return the background in a random rectangle between two cells of it.

    Rectangles are drawn until one is neither too narrow nor too small nor too large, and is
    background for the most part; where none of `TRIES` is, it is all background.

    Args:
        inside: where the concept is.
        generator: what is drawn from.

    Example:
        >>> inside = torch.zeros(16, 16, dtype=torch.bool)
        >>> 16 < int(rectangle(inside, torch.Generator().manual_seed(0)).sum()) < 100
        True
    """
    cells, unit = (~inside).nonzero(), inside.shape[-1] / SIDE
    if len(cells) < 2:
        return ~inside
    for _ in range(TRIES):
        two = cells[torch.randint(len(cells), (2,), generator=generator)]
        low, high = two.amin(0), two.amax(0)
        height, width = (high - low).tolist()
        area = height * width
        narrow = min(height, width) <= SMALLEST * unit
        if narrow or not LEAST * unit**2 <= area <= MOST * unit**2:
            continue
        inner = torch.zeros_like(inside)
        inner[low[0] : high[0] + 1, low[1] : high[1] + 1] = True
        inner &= ~inside
        if int(inner.sum()) >= BACKGROUND * area:
            return inner
    return ~inside
