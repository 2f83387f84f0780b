"""DDIM inversion: the deterministic sampler run backwards; edits by decoding under a new prompt."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Steps, between
from latentbench.editor import Editor
from latentbench.model import Condition, DiffusionModel
from latentbench.sampling.inversion import condition_of, ddim_invert
from latentbench.sampling.loop import generate, guided
from latentbench.types import Batch, Capability, Edit, Latent, Space


class DDIMInversion(Editor):
    """Invert x_0 to x_T at guidance 1, decode; edit by prompt swap.

    Sources: "Denoising Diffusion Implicit Models", equation 13; the first-steps fix: "There and
    Back Again: On the relation between Noise and Image Inversions in diffusion models".
    Deviation: the strength moves the condition c = (1 - lambda) c_source + lambda c_target and the
    guidance 1 + lambda (w - 1) together, so that strength 0 is the reconstruction and 1 is the
    published edit.

    Args:
        steps: sampling steps; default: the model's.
        convention: time that the network is told while inverting: "next" or "matched".
        forward_steps: inversion steps at the clean end that are replaced by one forward draw.
        guidance: guidance scale w of the edit at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = DDIMInversion(steps=20)  # editor.decode(editor.invert(batch))
    """

    paper = "Denoising Diffusion Implicit Models, equation 13"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }
    model: DiffusionModel

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Literal["next", "matched"] = "next",
        forward_steps: Annotated[int, between(0, 1000)] = 0,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.forward_steps = steps, forward_steps
        self.convention: Literal["next", "matched"] = convention
        self.guidance, self.max_strength = guidance, max_strength

    def invert(self, batch: Batch) -> Latent:
        """Return x_T of each image under its own prompt."""
        noise = None
        if self.forward_steps:
            shape = self.model.latent_shape
            noise = self.streams.normal("ddim_inversion/forward", batch.ids, shape)
        x = ddim_invert(
            self.model,
            batch,
            self.cache,
            steps=self.steps,
            prompts=batch.prompts,
            convention=self.convention,
            forward_noise=noise,
            forward_steps=self.forward_steps,
        )
        return Latent({Space.NOISE: x}, prompts=batch.prompts)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the prompts of the inversion, at guidance 1."""
        x = latent.parts[Space.NOISE]
        terms = guided(condition_of(self.model, latent.prompts, len(x)), Condition(), 1.0)
        return self.model.decode(generate(self.model, x, terms, grid=self.model.grid(self.steps)))

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images decoded under prompts between source and target."""
        model, b, s = self.model, len(batch), len(strengths)
        x = self.invert(batch).parts[Space.NOISE].repeat_interleave(s, 0)
        weight = strengths.repeat(b)
        source, target = (
            model.condition(prompts, b).repeat(s)
            for prompts in (batch.prompts, edit.target_prompts)
        )
        scale = (1 + weight * (self.guidance - 1)).to(model.device)
        terms = guided(source.lerp(target, weight), model.condition(None, b * s), scale)
        z0 = generate(model, x, terms, grid=model.grid(self.steps))
        return model.decode(z0).unflatten(0, (b, s))
