"""The model itself: plain sampling, and what encoding and decoding alone lose."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.editor import Editor
from latentbench.inversion import condition_of
from latentbench.models.base import DiffusionModel
from latentbench.sampling import generate, guided
from latentbench.types import Space


class PlainSampling(Editor):
    """Deterministic DDIM sampling with classifier-free guidance: the baseline of generation.

    Source: "Denoising Diffusion Implicit Models", equation 12.

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.
    """

    paper = "Denoising Diffusion Implicit Models, section 4"
    scope = "model"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"generate": frozenset({Space.NOISE})}
    model: DiffusionModel

    def __init__(self, *, steps: int | None = None, guidance: float | None = None) -> None:
        self.steps, self.guidance = steps, guidance

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the noise of that id where none is given."""
        model, b = self.model, len(ids)
        if noise is None:
            noise = self.streams.normal("prior", ids, model.latent_shape, model.device)
        x = noise.to(model.device)
        condition = condition_of(model, None if prompts is None else tuple(prompts), b)
        guidance = model.guidance if self.guidance is None else self.guidance
        terms = guided(condition, model.condition(None, b), guidance)
        return model.decode(generate(model, x, terms, grid=model.grid(self.steps)))
