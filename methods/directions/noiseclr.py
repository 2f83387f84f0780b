"""NoiseCLR: words without a meaning learn one each, by the contrast of their effects."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import Count, NotNegative, Positive, Share, Steps, above, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Condition, DiffusionModel
from latentbench.sampling.loop import Intervention, Step, Term, noise_to_level, plain, predict
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.fit_images import refuse_too_few
from methods.directions.step_window import refuse_empty

WORD = "<direction>"
ENCODED = 16  # images that the encoder sees at once


class Steer(Intervention):
    """Adds g (eps(x_t, c_d) - eps(x_t, c_empty)) in a window of the steps.

    Args:
        word: c_d, one row per image.
        empty: c_empty.
        strength: g, one number per row, signed.
        window: share of the steps in which it acts.
    """

    def __init__(
        self,
        word: Condition,
        empty: Condition,
        strength: Float[Tensor, " b"],
        window: tuple[float, float],
    ) -> None:
        self.word, self.empty, self.strength, self.window = word, empty, strength, window

    def terms(self, step: Step) -> Sequence[Term]:
        """Return both terms, whose weights add up to zero."""
        word = Term("direction", self.word, self.strength)
        return word, Term("without", self.empty, -self.strength)


class NoiseCLR(Editor[DiffusionModel]):
    """K word embeddings: alike in what one does to all images, unlike what the others do.

    Source: "NoiseCLR: A Contrastive Learning Approach for Unsupervised Discovery of Interpretable
    Directions in Diffusion Models", section 3. De_k = eps(x_t, c_k) - eps(x_t, c_empty). A step
    draws images, one level for all of them, a direction k and M others; the loss is
    -log(pos / neg), pos the mean over pairs of images of exp(cos(De_k^n, De_k^m) / tau), neg the
    mean over the others and images of exp(cos(De_k^n, De_j^n) / tau).

    A direction is asked for by its number. Strength is g, 0 the reconstruction, 7.5 as published.
    Real images are inverted and sampled under the empty prompt, without guidance.
    Deviations: levels are drawn from the sampler's grid, images are encoded by the mode and not
    flipped; no weight decay by default; all words of a step share one network call.

    Args:
        directions: K.
        compared: M, other directions that one is held against.
        images: unlabelled images of the generators' split; the cell's seed chooses them.
        batch: images of one step.
        iterations: optimiser steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        temperature: tau.
        start: share of the steps after which a direction acts.
        stop: share of the steps up to which it acts.
        steps: sampling steps; default: the model's.
        max_strength: largest g of a benchmark's curve.

    Example:
        >>> editor = NoiseCLR(directions=8)  # editor.fit(data, []); editor.edit(...)
    """

    paper = "NoiseCLR: A Contrastive Learning Approach for Unsupervised Discovery, section 3"
    numbered = True
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {
        "directions": 3, "compared": 1, "images": 4, "batch": 2, "iterations": 2,
    }  # fmt: skip
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {  # what a fit works in
        verb: frozenset({Space.NOISE, Space.TEXT}) for verb in ("invert", "edit")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.WORDS}) for verb in ("invert", "edit")
    }

    def __init__(
        self,
        *,
        directions: Annotated[int, between(2, 1000)] = 16,
        compared: Count = 4,
        images: Count = 64,
        batch: Annotated[int, between(2, 10_000)] = 8,
        iterations: Annotated[int, between(0, 1_000_000)] = 200,
        learning_rate: Positive = 0.005,
        weight_decay: NotNegative = 0.0,
        temperature: Positive = 0.5,
        start: Share = 0.0,
        stop: Annotated[Share, above(0)] = 1.0,
        steps: Steps | None = None,
        max_strength: Positive = 7.5,
    ) -> None:
        if compared >= directions:
            raise BadInput(f"compared {compared} must be below directions {directions}")
        if batch > images:
            raise BadInput(f"a batch of {batch} is more than the {images} images")
        refuse_empty(start, stop, None)
        self.count, self.compared, self.images, self.batch = directions, compared, images, batch
        self.iterations, self.learning_rate = iterations, learning_rate
        self.weight_decay, self.temperature = weight_decay, temperature
        self.window, self.steps, self.max_strength = (start, stop), steps, max_strength
        self.words_ = torch.zeros(0, 0)

    @classmethod
    def directions(cls, config: Mapping[str, Any]) -> int:
        """Return K."""
        return int(config.get("directions", 16))

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more images than there are, and a window without a step."""
        refuse_too_few(self.images, data)
        refuse_empty(*self.window, steps)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn all words at once; nothing if none will be asked for.

        Raises:
            BadInput: an edit that names an attribute, which no direction has.
        """
        if not edits:
            return
        if all(edit.component is None for edit in edits):
            raise self._unnumbered(edits[0].name)
        table, rows = self.model.vocabulary(), [str(k) for k in range(self.count)]
        draws = self.streams.normal("noiseclr/words", rows, table.shape[1:], table.device)
        words = (table.std() * draws).requires_grad_()
        adam = torch.optim.AdamW([words], self.learning_rate, weight_decay=self.weight_decay)
        chosen = self.streams.choice("fit/images", data.size("generator"), self.images)
        latents = self._encoded(data, chosen)
        for step in self.fitting.steps("noiseclr", self.iterations, {"words": words}, adam):
            adam.zero_grad()
            self._loss(words, latents, step).backward()
            adam.step()
        self.words_ = words.detach()

    def state(self) -> dict[str, Tensor]:
        """Return the words."""
        return {"words": self.words_}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the words back."""
        self.words_ = state["words"].to(self.model.device)

    def invert(self, batch: Batch) -> Latent:
        """Return x_T under the empty prompt."""
        return self.model.invert(batch, self.cache, steps=self.steps)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the empty prompt."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the direction of the edit's number at each strength."""
        if not len(self.words_):
            raise BadInput("NoiseCLR has learned nothing yet; call fit, or load_state")
        if edit.component is None or not 0 <= edit.component < len(self.words_):
            raise self._unnumbered(edit.name)
        x = self.invert(batch).parts[Space.NOISE].repeat_interleave(len(strengths), 0)
        g = edit.sign * strengths.to(x).repeat(len(batch))
        word = self._condition(self.words_[[edit.component]], len(x))
        change = Steer(word, self.model.unconditional(len(x)), g, self.window)
        images = self.model.sample(
            Latent({Space.NOISE: x}), guidance=1.0, steps=self.steps, interventions=[change]
        )
        return images.unflatten(0, (len(batch), len(strengths)))

    def effects(
        self, words: Float[Tensor, "k d"], latents: Float[Tensor, "b ..."], draw: str
    ) -> Float[Tensor, "k b n"]:
        """Return De of each word on each image at one level that is drawn, as unit vectors."""
        model, grid, b = self.model, self.model.grid(self.steps), len(latents)
        level = int(torch.randint(grid.n, (), generator=self.streams.generator(draw, "level")))
        rows = [str(k) for k in range(b)]
        noise = self.streams.normal(f"{draw}/noise", rows, latents.shape[1:], latents.device)
        x = noise_to_level(grid, latents, noise, level)
        with torch.no_grad():
            _, base = predict(model, x, grid, level, plain(model.unconditional(b)))
        every = x.repeat(len(words), *[1] * (x.dim() - 1))
        _, eps = predict(model, every, grid, level, plain(self._condition(words, b)))
        return F.normalize((eps.unflatten(0, (len(words), b)) - base).flatten(2), dim=2)

    def _loss(
        self, words: Float[Tensor, "k d"], latents: Float[Tensor, "n ..."], step: int
    ) -> Float[Tensor, ""]:
        """Return -log(pos / neg) of one direction against others, at one level."""
        draw = f"noiseclr/{step}"
        rows = self.streams.choice(f"{draw}/images", len(latents), self.batch)
        one, *others = self.streams.choice(f"{draw}/k", len(words), 1 + self.compared)
        return contrast(self.effects(words[[one, *others]], latents[rows], draw), self.temperature)

    def _condition(self, words: Float[Tensor, "k d"], rows: int) -> Condition:
        """Return the condition of each word for as many rows, ordered (word, row)."""
        told = [self.model.condition_with_words([WORD], {WORD: word}) for word in words]
        each = [c.map(lambda row: row.expand(rows, *row.shape[1:])) for c in told]
        return Condition.concat(each)

    def _encoded(self, data: Dataset, chosen: Sequence[int]) -> Float[Tensor, "n ..."]:
        found = []
        with torch.no_grad():
            for index, kept in even_batches(len(chosen), ENCODED):
                images = data.batch("generator", [chosen[k] for k in index]).images
                found.append(self.model.encode(images)[:kept])
        return torch.cat(found)

    def _unnumbered(self, name: str) -> BadInput:
        return BadInput(
            f"edit {name!r} asks for no direction of noiseclr, which are asked for by number, 0 to "
            f"{self.count - 1}; take benchmark=direction_discovery"
        )


def contrast(effects: Float[Tensor, "k b n"], temperature: float) -> Float[Tensor, ""]:
    """Return -log(pos / neg) of the first direction against the others.

    Args:
        effects: unit vectors by direction and image; at least two of either.
        temperature: tau.

    Example:
        >>> alike = torch.eye(2)[:, None].expand(2, 2, 2)
        >>> round(float(contrast(alike, 0.5)), 6)
        -2.0
    """
    own, rest = effects[0], effects[1:]
    pairs = torch.triu_indices(len(own), len(own), offset=1)
    positive = ((own @ own.T)[pairs[0], pairs[1]] / temperature).exp().mean()
    negative = ((own * rest).sum(2) / temperature).exp().mean()
    return (negative / positive).log()
