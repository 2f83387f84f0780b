"""DDIM inversion: the deterministic sampler run backwards; edits by decoding under a new prompt."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Positive, Steps, between
from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import Convention, DiffusionModel
from latentbench.sampling.fixed_point import FixedPoint
from latentbench.sampling.inversion import InversionSettings, ddim_invert, ddim_trajectory
from latentbench.types import Batch, Capability, Edit, Latent, Space
from methods.inversion.own_prompts import prompts_of, text_for

FORWARD = "There and Back Again: On the relation between Noise and Image Inversions, first steps"


class DDIMInversion(Editor[DiffusionModel]):
    """Invert x_0 to x_T, decode; edit by prompt swap.

    A step leads to level j by x_j = alpha_j x0 + sigma_j eps, with x0 and eps as the network finds
    them; an inversion goes to noisier levels, decoding to cleaner ones.

    Sources: "Denoising Diffusion Implicit Models", equation 13; the first-steps fix: "There and
    Back Again: On the relation between Noise and Image Inversions in diffusion models".
    Deviation: the strength moves the condition c = (1 - lambda) c_inversion + lambda c_target and
    the guidance w_inversion + lambda (w - w_inversion) together, so that strength 0 is the
    reconstruction and 1 is the published edit.

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while inverting: "matched" as in equation 13,
            or "next" as in diffusers' DDIMInverseScheduler and most editing codes.
        forward_steps: inversion steps at the clean end that are replaced by one forward draw.
        inversion_prompt: prompt of the inversion and of the reconstruction; default: each image's
            own caption. "" is the empty prompt.
        inversion_guidance: guidance scale of the inversion and of the reconstruction.
        negative: prompt that guidance leads away from; default: the empty condition.
        guidance: guidance scale w of the edit at strength 1.
        max_strength: largest lambda of a benchmark's curve.

    Example:
        >>> editor = DDIMInversion(steps=20)  # editor.decode(editor.invert(batch))
    """

    paper = "Denoising Diffusion Implicit Models, equation 13"
    version = 2
    fixed_point: FixedPoint | None = None  # how a derived class refines each step
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "invert": frozenset({Space.NOISE}),
        "edit": frozenset({Space.NOISE, Space.TEXT}),
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Convention = "matched",
        forward_steps: Annotated[int, between(0, 1000)] = 0,
        inversion_prompt: str | None = None,
        inversion_guidance: Guidance = 1.0,
        negative: str | None = None,
        guidance: Guidance = 3.0,
        max_strength: Positive = 1.0,
    ) -> None:
        self.steps, self.forward_steps = steps, forward_steps
        self.convention: Convention = convention
        self.inversion_prompt, self.inversion_guidance = inversion_prompt, inversion_guidance
        self.negative, self.guidance, self.max_strength = negative, guidance, max_strength

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return the class's paper, and that of forward draws where there are any."""
        paper = super().paper_of(config)
        return f"{paper}; {FORWARD}" if config.get("forward_steps") else paper

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return the spaces of the class, and text for prompts of the method's own."""
        spaces, needs = super().required(verbs, config)
        return spaces | text_for(config), needs

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse more forward steps than there are steps."""
        if steps is not None and self.forward_steps > steps:
            raise BadInput(
                f"method.forward_steps={self.forward_steps} is more than the {steps} sampling "
                f"steps; give {steps} or fewer, or raise method.steps"
            )

    def invert(self, batch: Batch) -> Latent:
        """Return x_T of each image under the inversion's prompt.

        All levels come with it where the batch holds those of the sampler.
        """
        model, b, noise = self.model, len(batch), None
        if self.forward_steps:
            noise = self.streams.normal("ddim_inversion/forward", batch.ids, model.latent_shape)
        prompts = prompts_of(batch, self.inversion_prompt)
        told = Latent({}, prompts=prompts)
        settings: InversionSettings = {
            "steps": self.steps,
            "condition": None if prompts is None else model.condition_of(told),
            "null": model.unconditional(b, self.negative),
            "guidance": self.inversion_guidance,
            "convention": self.convention,
            "forward_noise": noise,
            "forward_steps": self.forward_steps,
            "fixed_point": self.fixed_point,
        }
        if batch.trajectory is None:
            x = ddim_invert(model, batch, self.cache, **settings)
            return Latent({Space.NOISE: x}, prompts=prompts)
        x = ddim_trajectory(model, batch, self.cache, **settings)
        return Latent({Space.NOISE: x[:, 0]}, prompts=prompts, trajectory=x)

    def decode(self, latent: Latent) -> Float[Tensor, "b 3 h w"]:
        """Return the images of x_T under the inversion's prompt and guidance."""
        null = self.model.unconditional(len(latent), self.negative)
        return self.model.sample(
            latent, null=null, guidance=self.inversion_guidance, steps=self.steps
        )

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the images decoded under prompts between the inversion's and the target."""
        model, b, s = self.model, len(batch), len(strengths)
        latent, weight = self.invert(batch), strengths.repeat(b)
        target = model.condition(edit.target_prompts, b).repeat(s)
        images = model.sample(
            Latent({Space.NOISE: latent.parts[Space.NOISE].repeat_interleave(s, 0)}),
            condition=model.condition_of(latent).repeat(s).lerp(target, weight),
            null=model.unconditional(b * s, self.negative),
            guidance=self.inversion_guidance + weight * (self.guidance - self.inversion_guidance),
            steps=self.steps,
        )
        return images.unflatten(0, (b, s))
