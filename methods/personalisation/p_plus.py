"""P+: a word for what a few images show, with a vector of its own for each layer that reads it."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, Positive, Steps
from latentbench.model import Condition
from latentbench.sampling.loop import Intervention, Step
from latentbench.types import SUBJECT, Batch, Space
from methods.personalisation.layers import (
    LayerPrompts,
    cross_layers,
    denoising_loss,
    rows_by_prompt,
)
from methods.personalisation.learned_subject import LearnedSubject


class ExtendedTextualInversion(LearnedSubject):
    """Learns V = (v_1 .. v_L): layer i of cross-attention reads the prompt with v_i for `SUBJECT`.

    Source: "P+: Extended Textual Conditioning in Text-to-Image Generation", section 4 (extended
    textual inversion): V* = argmin_V E ||eps - eps(z_t, t, c(y, v_1) .. c(y, v_L))||^2, each
    c(y, v_i) encoded on its own; or the same of v, x0 or a flow's velocity where the network
    predicts that. The unconditional branch reads one empty prompt in all layers.

    Deviations: all v_i start from one normal draw at the scale of the model's own embeddings, not
    from the word of a coarse class; the captions are the references' own where they name the
    subject, else the word alone; a step sees all references at one level of the sampler's grid. No
    weight decay. Mixing the shape of one subject with the look of another is not implemented.

    Args:
        iterations: steps of Adam.
        learning_rate: of Adam.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.

    Example:
        >>> method = ExtendedTextualInversion(iterations=500)
        >>> # method.personalise(references, ("a",), (f"{SUBJECT} smiling",))
    """

    paper = "P+: Extended Textual Conditioning in Text-to-Image Generation, section 4"
    version = 2
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "personalise": frozenset({Space.NOISE, Space.TEXT, Space.ATTENTION})
    }

    def __init__(
        self,
        *,
        iterations: Count = 150,
        learning_rate: Positive = 0.02,
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.iterations, self.learning_rate = iterations, learning_rate
        self.steps, self.guidance = steps, guidance

    def start(self, references: Batch) -> dict[str, Tensor]:
        """Return V, [L, d], all rows alike."""
        del references
        v = self.first_word("p_plus/word")
        return {"words": v.repeat(len(cross_layers(self.model)), 1).requires_grad_()}

    def told(
        self, prompts: Sequence[str], learned: Mapping[str, Tensor]
    ) -> tuple[Condition, Sequence[Intervention]]:
        """Return the prompts' condition, and what lets each layer read its own."""
        words = [{SUBJECT: v} for v in learned["words"]]
        contexts = rows_by_prompt(self.model, prompts, words)
        layers = PromptOfLayer(cross_layers(self.model), contexts)
        told = self.model.unconditional(len(prompts)).tensors
        return Condition({**told, "encoder_hidden_states": contexts[0]}), (layers,)

    def loss(
        self,
        learned: Mapping[str, Tensor],
        z0: Float[Tensor, "b ..."],
        captions: Sequence[str],
        ids: Sequence[str],
        step: int,
    ) -> Float[Tensor, ""]:
        """Return the error under c_1 .. c_L, at one level and with one noise per reference."""
        return denoising_loss(
            self.model, self.streams, "p_plus", z0, ids, step, *self.told(captions, learned)
        )


class PromptOfLayer(LayerPrompts):
    """Layer i reads c_i.

    Args:
        layers: names of the layers.
        contexts: c_1 .. c_L, each with a row per image.
    """

    def __init__(self, layers: Sequence[str], contexts: Sequence[Float[Tensor, "b m d"]]) -> None:
        super().__init__(layers)
        self.contexts = contexts

    def read(self, step: Step, place: int) -> tuple[Tensor, Tensor]:
        """Return c_i, for keys and values."""
        return self.contexts[place], self.contexts[place]
