"""The model's own encoder: images to its vector code and back."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Steps
from latentbench.editor import Editor
from latentbench.model import Convention
from latentbench.models.push_forward import PushForward
from latentbench.models.semantic import SemanticDiffusion
from latentbench.types import Batch, Capability, Latent, Space


class Autoencode(Editor[Any]):
    """Encode with the model's trained encoder, decode; the code itself as a representation.

    Sources: "Auto-Encoding Variational Bayes" (z, the posterior's mean); "Diffusion Autoencoders",
    section 3 (z_sem, and x_T by DDIM inversion under z_sem). On a GAN the code is w. How much of an
    image z_sem alone holds shows with fresh noise in place of the inverted x_T.

    Args:
        noise: "inverted", or "fresh" x_T, for a model that has one besides its code.
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while inverting: "matched", or "next" as
            diffusers' DDIMInverseScheduler has it.

    Example:
        >>> editor = Autoencode(noise="fresh")  # editor.decode(editor.invert(batch))
    """

    paper = "Diffusion Autoencoders, section 3"
    version = 2
    families = (PushForward, SemanticDiffusion)
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "represent": frozenset({Space.NOISE}),
    }

    def __init__(
        self,
        *,
        noise: Literal["inverted", "fresh"] = "inverted",
        steps: Steps | None = None,
        convention: Convention = "matched",
    ) -> None:
        self.noise, self.steps = noise, steps
        self.convention: Convention = convention

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return the spaces of the class; fresh noise takes a code that is not all of an image."""
        spaces, needs = super().required(verbs, config)
        fresh = {Space.SEMANTIC} if config.get("noise") == "fresh" else frozenset()
        return spaces | fresh, needs

    def represent(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Return each image's code."""
        (code,) = self.model.code_of(batch.images).parts.values()
        return code

    def invert(self, batch: Batch) -> Latent:
        """Return each image's code, with x_T where the model has one."""
        if self.noise == "inverted":
            return self.model.invert(
                batch, self.cache, steps=self.steps, convention=self.convention
            )
        shape = self.model.latent_shape
        x = self.streams.normal("autoencode", batch.ids, shape, self.model.device)
        return Latent({Space.NOISE: x, **self.model.code_of(batch.images).parts})

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of codes."""
        return self.model.sample(latent, guidance=1.0, steps=self.steps)
