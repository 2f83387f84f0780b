"""Linear interpolation of noise, and of prompt embeddings or codes where the ends have them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Steps
from latentbench.editor import Editor
from latentbench.model import Condition, Convention, LatentModel
from latentbench.sampling import linear
from latentbench.sampling.loop import Intervention
from latentbench.types import Batch, Capability, Endpoint, Latent, Space

PATHS_IN_W = "baseline; A Style-Based Generator Architecture for GANs, section 4.1, paths in w"


class LinearInterpolation(Editor[Any]):
    """Straight path between two noises: z = (1 - s) z_a + s z_b, decoded by DDIM.

    The norm shrinks to sqrt((1 - s)^2 + s^2), 0.707 in the middle: off the shell where noise
    lives, hence washed-out images. Prompts are interpolated per token ("text embedding
    interpolation"), codes z_sem per number. Real images are DDIM-inverted first. On a model without
    a sampler the path runs in z, or in w where it has one; real images are encoded.

    Args:
        space: "noise", or "style" for a path in w.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's. Equal for all methods that are compared.
        negative: prompt that guidance leads away from, where the model takes prompts; default: the
            empty condition.
        convention: timestep that the network receives while a real image is inverted: "matched", or
            "next" as diffusers' DDIMInverseScheduler has it.

    Example:
        >>> path = LinearInterpolation(steps=20)  # path.interpolate(a, b, steps=11)
    """

    paper = "baseline; Denoising Diffusion Implicit Models, section 5.3, with a straight path"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"interpolate": frozenset({Space.NOISE})}
    version = 2
    families = (LatentModel,)

    def __init__(
        self,
        *,
        space: Literal["noise", "style"] = "noise",
        steps: Steps | None = None,
        guidance: Guidance | None = None,
        negative: str | None = None,
        convention: Convention = "matched",
    ) -> None:
        self.space, self.steps, self.guidance = Space(space), steps, guidance
        self.negative = negative
        self.convention: Convention = convention

    @classmethod
    def paper_of(cls, config: Mapping[str, Any]) -> str:
        """Return where the straight path stands: in noise, or in w."""
        return PATHS_IN_W if config.get("space") == "style" else super().paper_of(config)

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return the spaces of the class, the configured one, and text for a negative prompt."""
        spaces, needs = super().required(verbs, config)
        text = frozenset() if config.get("negative") is None else {Space.TEXT}
        return spaces | {Space(config.get("space", "noise"))} | text, needs

    def mix(self, a: Tensor, b: Tensor, w: Float[Tensor, "b t"]) -> Float[Tensor, "b t ..."]:
        """Return the path between two noises."""
        return linear.lerp(a, b, w)

    def coefficients(self, a: Endpoint, b: Endpoint, frames: int) -> Float[Tensor, "b t"]:
        """Return where on its path each frame is, from 0 to 1."""
        del b
        return torch.linspace(0, 1, frames).repeat(len(a.ids), 1)

    def interventions(self, w: Float[Tensor, "b t"]) -> Sequence[Intervention]:
        """Return changes to the loop for frames at these coefficients; none here."""
        return ()

    def interpolate(self, a: Endpoint, b: Endpoint, steps: int) -> Float[Tensor, "b t 3 h w"]:
        """Return `steps` frames of each path, all decoded in one batch."""
        return self.frames(a, b, self.coefficients(a, b, steps))

    def frames(
        self, a: Endpoint, b: Endpoint, w: Float[Tensor, "b t"]
    ) -> Float[Tensor, "b t 3 h w"]:
        """Return the frames at these coefficients."""
        ends = self.latent(a), self.latent(b)
        null = None
        if self.negative is not None:
            null = self.model.unconditional(w.numel(), self.negative)
        images = self.model.sample(
            self.between(*ends, w),
            condition=self.condition(*ends, w),
            null=null,
            guidance=self.guidance,
            steps=self.steps,
            interventions=self.interventions(w),
        )
        return images.unflatten(0, w.shape)

    def latent(self, end: Endpoint) -> Latent:
        """Return one end: its image inverted at guidance 1, or its noise and code."""
        if end.images is not None:
            batch = Batch(end.ids, end.images)
            return self.model.invert(
                batch,
                self.cache,
                prompts=end.prompts,
                steps=self.steps,
                convention=self.convention,
            )
        assert end.noise is not None
        noise = end.noise.to(self.model.device)
        if self.space is Space.STYLE:
            return Latent({Space.STYLE: self.model.push(noise)})
        code = {} if end.code is None else {Space.SEMANTIC: end.code}
        return Latent({Space.NOISE: noise, **code}, prompts=end.prompts)

    def between(self, a: Latent, b: Latent, w: Float[Tensor, "b t"]) -> Latent:
        """Return the latent of every frame, rows ordered (path, frame), but for its condition."""
        spaces = a.parts.keys() - {Space.SEMANTIC}
        return Latent({s: self.mix(a.parts[s], b.parts[s], w).flatten(0, 1) for s in spaces})

    def condition(self, a: Latent, b: Latent, w: Float[Tensor, "b t"]) -> Condition:
        """Return the condition of every frame, rows ordered (path, frame)."""
        one, two = (self.model.condition_of(end).repeat(w.shape[1]) for end in (a, b))
        return one.lerp(two, w.flatten())
