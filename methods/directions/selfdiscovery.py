"""Self-discovered concepts: what h-space must add for a neutral caption to explain a concept."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.batching import even_batches
from latentbench.bounds import Count, Positive, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput, unknown
from latentbench.model import Condition, DiffusionModel
from latentbench.parameterization import prediction_error
from latentbench.sampling.loop import (
    Intervention,
    Recorder,
    Step,
    denoise,
    generate,
    guided,
    noise_to_level,
    plain,
)
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.directions.fit_images import refuse_too_few

SAMPLED = 32  # images that are sampled at once


class AddConcept(Intervention):
    """h_t + lambda c in the conditional branch, at every step.

    Args:
        concept: c, the same at all times.
        strength: lambda, one number per row.
    """

    def __init__(self, concept: Float[Tensor, "..."], strength: Float[Tensor, " b"]) -> None:
        self.concept, self.strength = concept, strength

    def bottleneck(self, step: Step, h: Float[Tensor, "k b ..."]) -> Float[Tensor, "k b ..."]:
        """Return h_t, with the concept in the conditional rows."""
        where = torch.tensor([branch == "condition" for branch in step.branches])
        scale = where.to(h)[:, None] * self.strength.to(h)
        return h + scale.reshape(*scale.shape, *[1] * (h.dim() - 2)) * self.concept.to(h)


class SelfDiscovery(Editor[DiffusionModel]):
    """A vector of h-space per concept, found on the model's own images of it.

    Source: "Self-Discovering Interpretable Diffusion Latent Directions for Responsible
    Text-to-Image Generation", section 3: images are sampled under a caption y+ of the concept;
    c = argmin E |eps - eps(x_t, t, y-, h_t + c)|^2, or that of what else the network predicts, with
    the neutral caption y-, all weights frozen: what y- lacks, only c can supply. c has no time
    axis.

    The captions are those of the data set's generators' split with the attribute set; y- lacks the
    attribute's word, and is the same in all else. Strength is lambda: 0 is the reconstruction, 1
    the concept. Real images are inverted under the empty prompt, and c is added there.
    Deviations: c starts at zero; a step's images share one level of the sampler's grid; clean
    latents are kept as they are sampled, not decoded and encoded again; editing of real images
    is this suite's own.

    Args:
        images: that are sampled per concept.
        batch: images of one step.
        iterations: optimiser steps.
        learning_rate: of Adam.
        guidance: of the images' sampling; default: the model's.
        steps: sampling steps; default: the model's.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = SelfDiscovery(images=32)  # editor.fit(data, edits); editor.edit(...)
    """

    paper = "Self-Discovering Interpretable Diffusion Latent Directions, section 3"
    scope = "global"
    small: ClassVar[Mapping[str, Any]] = {"images": 4, "batch": 2, "iterations": 3}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {  # what a fit works in
        verb: frozenset({Space.NOISE, Space.BOTTLENECK, Space.TEXT}) for verb in ("invert", "edit")
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        verb: frozenset({Capability.PROMPTS}) for verb in ("invert", "edit")
    }

    def __init__(
        self,
        *,
        images: Count = 64,
        batch: Count = 8,
        iterations: Annotated[int, between(0, 1_000_000)] = 150,
        learning_rate: Positive = 0.01,
        guidance: Positive | None = None,
        steps: Steps | None = None,
        max_strength: Positive = 2.0,
    ) -> None:
        if batch > images:
            raise BadInput(f"a batch of {batch} is more than the {images} images")
        self.images, self.batch, self.iterations = images, batch, iterations
        self.learning_rate, self.guidance = learning_rate, guidance
        self.steps, self.max_strength = steps, max_strength
        self.concepts_: dict[str, Tensor] = {}

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more captions than there are."""
        refuse_too_few(self.images, data)

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Learn a concept for each edit.

        Raises:
            BadInput: an edit that no word describes.
        """
        for edit in edits:
            if edit.words is None or edit.attribute is None:
                raise BadInput(
                    f"edit {edit.name!r} has no words for before and after, from which "
                    f"selfdiscovery learns; take a data set and a benchmark that give them, such "
                    f"as benchmark=attribute_editing of dataset=faces"
                )
        self.concepts_ = {edit.name: self._learn(data, edit) for edit in edits}

    def state(self) -> dict[str, Tensor]:
        """Return the concepts by edit."""
        return self.concepts_

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take the concepts back."""
        self.concepts_ = {name: c.to(self.model.device) for name, c in state.items()}

    def invert(self, batch: Batch) -> Latent:
        """Return x_T under the empty prompt."""
        return self.model.invert(batch, self.cache, steps=self.steps)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the empty prompt."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images with the concept at each strength."""
        if edit.name not in self.concepts_:
            raise unknown("edit", edit.name, self.concepts_)
        x = self.invert(batch).parts[Space.NOISE].repeat_interleave(len(strengths), 0)
        change = AddConcept(self.concepts_[edit.name], strengths.to(x).repeat(len(batch)))
        images = self.model.sample(
            Latent({Space.NOISE: x}), guidance=1.0, steps=self.steps, interventions=[change]
        )
        return images.unflatten(0, (len(batch), len(strengths)))

    def loss(
        self,
        concept: Float[Tensor, "..."],
        latents: Float[Tensor, "b ..."],
        neutral: Condition,
        draw: str,
    ) -> Float[Tensor, ""]:
        """Return the squared error of what the network predicts under y- with the concept."""
        model, grid = self.model, self.model.grid(self.steps)
        level = int(torch.randint(grid.n, (), generator=self.streams.generator(draw, "level")))
        rows = [str(k) for k in range(len(latents))]
        noise = self.streams.normal(f"{draw}/noise", rows, latents.shape[1:], latents.device)
        x = noise_to_level(grid, latents, noise, level)
        change = AddConcept(concept, x.new_ones(len(x)))
        settings = {"grid": grid, "level": level, "interventions": [change]}
        found = denoise(model, x, plain(neutral), **settings)
        levels = grid.levels(level, x)
        error = prediction_error(model.prediction_type, found, (latents, noise), *levels)
        return error.square().mean()

    def captions(self, data: Dataset, edit: Edit) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return y+ and y- of the images that are sampled."""
        assert edit.words is not None and edit.attribute is not None
        chosen = self.streams.choice("fit/captions", data.size("generator"), self.images)
        goal = torch.full((len(chosen),), float(edit.sign > 0))
        told = data.edited_prompts("generator", chosen, edit.attribute, goal)
        word = edit.words[1]
        return told, tuple(" ".join(w for w in text.split() if w != word) for text in told)

    def _learn(self, data: Dataset, edit: Edit) -> Tensor:
        with_concept, neutral = self.captions(data, edit)
        latents = self._sampled(edit.name, with_concept)
        concept = torch.zeros(self._shape(), device=latents.device, requires_grad=True)
        adam = torch.optim.Adam([concept], self.learning_rate)
        steps = self.fitting.steps(
            f"selfdiscovery-{edit.name}", self.iterations, {"concept": concept}, adam
        )
        for step in steps:
            draw = f"selfdiscovery/{edit.name}/{step}"
            rows = self.streams.choice(f"{draw}/images", self.images, self.batch)
            condition = self.model.condition([neutral[k] for k in rows], len(rows))
            adam.zero_grad()
            self.loss(concept, latents[rows], condition, draw).backward()
            adam.step()
        return concept.detach()

    def _sampled(self, name: str, captions: Sequence[str]) -> Float[Tensor, "n ..."]:
        """Return clean latents of the model's own images under these captions."""
        model, batches = self.model, list(even_batches(len(captions), SAMPLED))
        latents = torch.zeros(len(captions), *model.latent_shape, device=model.device)
        steps = self.fitting.steps(f"selfdiscovery-{name}-images", len(batches), {"z0": latents})
        scale = model.guidance if self.guidance is None else self.guidance
        with torch.no_grad():
            for k in steps:
                index, kept = batches[k]
                ids = [f"{name}/{i}" for i in index]
                x = model.prior(self.streams, ids).parts[Space.NOISE]
                told = model.condition([captions[i] for i in index], len(index))
                terms = guided(told, model.unconditional(len(index)), scale)
                z0 = generate(model, x, terms, grid=model.grid(self.steps))
                latents[index[0] : index[0] + kept] = z0[:kept]
        return latents

    def _shape(self) -> tuple[int, ...]:
        recorder, model = Recorder(bottleneck=True), self.model
        x, terms = torch.zeros(1, *model.latent_shape), plain(model.unconditional(1))
        settings = {"grid": model.grid(self.steps), "level": 0, "interventions": [recorder]}
        with torch.no_grad():
            denoise(model, x.to(model.device), terms, **settings)
        return tuple(recorder.h[0].shape[1:])
