"""Textual inversion: a new word for what a few images show."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, Positive, Steps
from latentbench.model import Condition
from latentbench.parameterization import prediction_error
from latentbench.sampling.loop import Intervention, plain, predict
from latentbench.types import SUBJECT, Batch
from methods.personalisation.learned_subject import LearnedSubject


class TextualInversion(LearnedSubject):
    """Learns the token embedding v* of `SUBJECT` that denoises the references best.

    Source: "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual
    Inversion", equation 2: v* = argmin_v E ||eps - eps(z_t, t, c(y, v))||^2, or the same of v, x0
    or a flow's velocity where the network predicts that. Deviations: the start is a normal draw at
    the scale of the model's own embeddings, not the word of a coarse class; the captions are the
    references' own where they name the subject, else the word alone; every step sees all
    references, at one level each.

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
    version = 2

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

    def start(self, references: Batch) -> dict[str, Tensor]:
        """Return the first v*."""
        del references
        return {"word": self.first_word("textual_inversion/word").requires_grad_()}

    def told(
        self, prompts: Sequence[str], learned: Mapping[str, Tensor]
    ) -> tuple[Condition, Sequence[Intervention]]:
        """Return the prompts' condition with v* in them."""
        return self.model.condition_with_words(prompts, {SUBJECT: learned["word"]}), ()

    def loss(
        self,
        learned: Mapping[str, Tensor],
        z0: Float[Tensor, "b ..."],
        captions: Sequence[str],
        ids: Sequence[str],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return the error of equation 2 at one level and one noise per reference."""
        model, grid = self.model, self.model.grid()
        draws = [self.streams.generator("textual_inversion", f"{step}/{i}") for i in ids]
        level = torch.stack([torch.randint(grid.n, (), generator=g) for g in draws])
        eps = torch.stack([torch.randn(*z0.shape[1:], generator=g) for g in draws]).to(z0)
        alpha, sigma = grid.levels(level, z0)
        condition, _ = self.told(captions, learned)
        found = predict(model, alpha * z0 + sigma * eps, grid, level, plain(condition))
        error = prediction_error(model.prediction_type, found, (z0, eps), alpha, sigma)
        return error.square().mean()
