"""Textual inversion: a new word for what a few images show."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, Positive, Steps
from latentbench.content import content_hash
from latentbench.editor import Editor
from latentbench.model import DiffusionModel
from latentbench.sampling.loop import generate, guided, plain, predict
from latentbench.types import SUBJECT, Batch, Capability, Space


class TextualInversion(Editor[DiffusionModel]):
    """Learns the token embedding v* of `SUBJECT` that denoises the references best.

    Source: "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual
    Inversion", equation 2: v* = argmin_v E ||eps - eps(z_t, t, c(y, v))||^2. Deviations: the start
    is a normal draw at the scale of the model's own embeddings, not the word of a coarse class; the
    captions are the word alone; every step sees all references, at one level each.

    Args:
        iterations: steps of Adam.
        learning_rate: of Adam.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.

    Example:
        >>> method = TextualInversion(iterations=500)
        >>> # method.personalise(references, ("a",), (f"{SUBJECT} smiling",))
    """

    paper = "An Image is Worth One Word: Personalizing Text-to-Image Generation, section 3"
    small: ClassVar[Mapping[str, Any]] = {"iterations": 3}
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "personalise": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "personalise": frozenset({Capability.REFERENCES, Capability.WORDS, Capability.PROMPTS})
    }

    def __init__(
        self,
        *,
        iterations: Count = 300,
        learning_rate: Positive = 0.02,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.iterations, self.learning_rate = iterations, learning_rate
        self.steps, self.guidance = steps, guidance

    def personalise(
        self, references: Batch, ids: Sequence[str], prompts: Sequence[str]
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id of the references' subject, from the noise of that id."""
        model, word = self.model, self.learn(references)
        condition = model.condition_with_words(prompts, {SUBJECT: word})
        scale = model.guidance if self.guidance is None else self.guidance
        terms = guided(condition, model.condition(None, len(ids)), scale)
        x = model.prior(self.streams, ids).parts[Space.NOISE]
        return model.decode(generate(model, x, terms, grid=model.grid(self.steps)))

    def learn(self, references: Batch) -> Float[Tensor, " d"]:
        """Return v* of these references, from the cache where it is known."""
        settings = (self.iterations, self.learning_rate, self.streams.seed)
        name = content_hash(self.model.fingerprint(), references.images, *settings)

        def make() -> dict[str, Tensor]:
            with torch.enable_grad():
                return {"word": self._optimise(references, name)}

        return self.cache.get_or_make("word", name, make)["word"].to(self.model.device)

    def _optimise(self, references: Batch, name: str) -> Float[Tensor, " d"]:
        model = self.model
        table = model.vocabulary()
        start = self.streams.normal("textual_inversion/word", ("start",), table.shape[1:])[0]
        v = (table.mean(0) + table.std() * start.to(table)).requires_grad_()
        adam = torch.optim.Adam([v], lr=self.learning_rate)
        with torch.no_grad():
            z0 = model.encode(references.images)
        for step in self.fitting.steps(f"word-{name[:16]}", self.iterations, {"word": v}, adam):
            adam.zero_grad()
            self._loss(v, z0, references.ids, step).backward()
            adam.step()
        return v.detach()

    def _loss(
        self, v: Float[Tensor, " d"], z0: Tensor, ids: Sequence[str], step: int
    ) -> Float[Tensor, ""]:
        """Return equation 2 at one level and one noise per reference."""
        model, grid, b = self.model, self.model.grid(), len(ids)
        draws = [self.streams.generator("textual_inversion", f"{step}/{i}") for i in ids]
        level = torch.stack([torch.randint(grid.n, (), generator=g) for g in draws])
        eps = torch.stack([torch.randn(*z0.shape[1:], generator=g) for g in draws]).to(z0)
        alpha, sigma = grid.levels(level, z0)
        word = model.condition_with_words([SUBJECT], {SUBJECT: v})
        terms = plain(word.map(lambda rows: rows.expand(b, *rows.shape[1:])))
        _, found = predict(model, alpha * z0 + sigma * eps, grid, level, terms)
        return (found - eps).square().mean()
