"""The model itself: plain sampling, and what encoding and decoding alone lose."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Steps
from latentbench.editor import Editor
from latentbench.model import LatentModel
from latentbench.types import Latent, Space


class PlainSampling(Editor[Any]):
    """Deterministic DDIM sampling with classifier-free guidance: the baseline of generation.

    Source: "Denoising Diffusion Implicit Models", equation 12. A model that takes a code draws
    it from its own prior; a model without a sampler pushes its noise forward.

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's.
    """

    paper = "Denoising Diffusion Implicit Models, section 4"
    scope = "model"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"generate": frozenset({Space.NOISE})}
    families = (LatentModel,)

    def __init__(self, *, steps: Steps | None = None, guidance: Guidance | None = None) -> None:
        self.steps, self.guidance = steps, guidance

    def generate(
        self, ids: Sequence[str], prompts: Sequence[str] | None, noise: Tensor | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        """Return one image per id, from the noise of that id where none is given."""
        parts = dict(self.model.prior(self.streams, ids).parts)
        if noise is not None:
            parts[Space.NOISE] = noise
        latent = Latent(parts, prompts=None if prompts is None else tuple(prompts))
        return self.model.sample(latent, guidance=self.guidance, steps=self.steps)
