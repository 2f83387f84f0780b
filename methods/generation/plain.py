"""The model itself: plain sampling, and what encoding and decoding alone lose."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Steps
from latentbench.editor import Editor
from latentbench.model import DiffusionModel
from latentbench.models.push_forward import PushForward
from latentbench.sampling.inversion import condition_of
from latentbench.sampling.loop import generate, guided
from latentbench.types import Space


class PlainSampling(Editor):
    """Deterministic DDIM sampling with classifier-free guidance: the baseline of generation.

    Source: "Denoising Diffusion Implicit Models", equation 12. A model that is told a code draws
    it from its own prior; a model without a sampler pushes its noise forward.

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.
    """

    paper = "Denoising Diffusion Implicit Models, section 4"
    scope = "model"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"generate": frozenset({Space.NOISE})}
    families = (DiffusionModel, PushForward)
    model: Any

    def __init__(self, *, steps: Steps | None = None, guidance: Guidance | None = None) -> None:
        self.steps, self.guidance = steps, guidance

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the noise of that id where none is given."""
        model, b = self.model, len(ids)
        parts = model.prior(self.streams, ids).parts
        x = (parts[Space.NOISE] if noise is None else noise).to(model.device)
        if isinstance(model, PushForward):
            return model.decode(model.push(x))
        words = None if prompts is None else tuple(prompts)
        condition = condition_of(model, words, b, parts.get(Space.SEMANTIC))
        guidance = model.guidance if self.guidance is None else self.guidance
        terms = guided(condition, model.condition(None, b), guidance)
        return model.decode(generate(model, x, terms, grid=model.grid(self.steps)))
