"""The model's own encoder: images to its vector code and back."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Steps
from latentbench.editor import Editor
from latentbench.model import Condition
from latentbench.models.push_forward import PushForward
from latentbench.models.semantic import SemanticDiffusion
from latentbench.sampling.inversion import condition_of, ddim_invert
from latentbench.sampling.loop import generate, guided
from latentbench.types import Batch, Latent, Space


class Autoencode(Editor):
    """Encode with the model's trained encoder, decode; the code itself as a representation.

    Sources: "Auto-Encoding Variational Bayes" (z, the posterior's mean); "Diffusion Autoencoders",
    section 3 (z_sem, and x_T by DDIM inversion under z_sem). On a GAN the code is w. How much of an
    image z_sem alone holds shows with fresh noise in place of the inverted x_T.

    Args:
        noise: "inverted" or "fresh" x_T, for a model that has one beside its code.
        steps: sampling steps; default: the model's.

    Example:
        >>> editor = Autoencode(noise="fresh")  # editor.decode(editor.invert(batch))
    """

    paper = "Diffusion Autoencoders, section 3"
    families = (PushForward, SemanticDiffusion)
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "represent": frozenset({Space.NOISE}),
    }
    model: Any

    def __init__(
        self, *, noise: Literal["inverted", "fresh"] = "inverted", steps: Steps | None = None
    ) -> None:
        self.noise, self.steps = noise, steps

    def represent(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return each image's code."""
        if isinstance(self.model, SemanticDiffusion):
            return self.model.encode_semantic(batch.images)
        return self.model.encode(batch.images)

    def invert(self, batch: Batch) -> Latent:
        """Return each image's code, with x_T where the model has one."""
        code = self.represent(batch)
        if not isinstance(self.model, SemanticDiffusion):
            return Latent({self._space(): code})
        if self.noise == "fresh":
            shape = self.model.latent_shape
            x = self.streams.normal("autoencode", batch.ids, shape, self.model.device)
        else:
            x = ddim_invert(self.model, batch, self.cache, steps=self.steps, code=code)
        return Latent({Space.SEMANTIC: code, Space.NOISE: x})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes."""
        if not isinstance(self.model, SemanticDiffusion):
            return self.model.decode(latent.parts[self._space()])
        x, code = latent.parts[Space.NOISE], latent.parts[Space.SEMANTIC]
        terms = guided(condition_of(self.model, None, len(x), code), Condition(), 1.0)
        return self.model.decode(generate(self.model, x, terms, grid=self.model.grid(self.steps)))

    def _space(self) -> Space:
        return Space.STYLE if Space.STYLE in self.model.spaces else Space.VAE
