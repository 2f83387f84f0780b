"""Linear interpolation of noise, and of prompt embeddings or codes where the ends have them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Guidance, Steps
from latentbench.editor import Editor
from latentbench.model import Condition, DiffusionModel
from latentbench.models.push_forward import PushForward
from latentbench.sampling import linear
from latentbench.sampling.inversion import condition_of, ddim_invert
from latentbench.sampling.loop import Intervention, generate, guided
from latentbench.types import Batch, Capability, Endpoint, Space


class LinearInterpolation(Editor):
    """Straight path between two noises: z = (1 - s) z_a + s z_b, decoded by DDIM.

    The norm shrinks to sqrt((1 - s)^2 + s^2), 0.707 in the middle: off the shell where noise
    lives, hence washed-out images. Prompts are interpolated per token ("text embedding
    interpolation"), codes z_sem per number. Real images are DDIM-inverted first. On a model without
    a sampler the path runs in z, or in w where it has one; real images are encoded.

    Args:
        space: "noise", or "style" for a path in w.
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's. Equal for all methods that are compared.

    Example:
        >>> path = LinearInterpolation(steps=20)  # path.interpolate(a, b, steps=11)
    """

    paper = "baseline; Denoising Diffusion Implicit Models, section 5.3, with a straight path"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"interpolate": frozenset({Space.NOISE})}
    families = (DiffusionModel, PushForward)
    model: Any

    def __init__(
        self,
        *,
        space: Literal["noise", "style"] = "noise",
        steps: Steps | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        self.space, self.steps, self.guidance = Space(space), steps, guidance

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return the spaces of the class, and the configured one."""
        spaces, needs = super().required(verbs, config)
        return spaces | {Space(config.get("space", "noise"))}, needs

    def mix(self, a: Tensor, b: Tensor, w: Float[Tensor, "b t"]) -> Float[Tensor, "b t ..."]:
        """Return the path between two noises."""
        return linear.lerp(a, b, w)

    def coefficients(self, a: Endpoint, b: Endpoint, frames: int) -> Float[Tensor, "b t"]:
        """Return where on its path each frame lies, from 0 to 1."""
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
        model = self.model
        if isinstance(model, PushForward):
            return model.decode(self._codes(a, b, w).flatten(0, 1)).unflatten(0, w.shape)
        x = self.mix(self.noise(a), self.noise(b), w).flatten(0, 1)
        guidance = model.guidance if self.guidance is None else self.guidance
        terms = guided(self.condition(a, b, w), model.condition(None, len(x)), guidance)
        grid, changes = model.grid(self.steps), self.interventions(w)
        images = model.decode(generate(model, x, terms, grid=grid, interventions=changes))
        return images.unflatten(0, w.shape)

    def noise(self, end: Endpoint) -> Float[Tensor, "b ..."]:
        """Return x_T of one end: its noise, or its image inverted at guidance 1."""
        if end.images is None:
            assert end.noise is not None
            return end.noise.to(self.model.device)
        batch = Batch(end.ids, end.images)
        return ddim_invert(
            self.model, batch, self.cache, steps=self.steps, prompts=end.prompts, code=end.code
        )

    def condition(self, a: Endpoint, b: Endpoint, w: Float[Tensor, "b t"]) -> Condition:
        """Return the condition of every frame, rows ordered (path, frame)."""
        one, two = (
            condition_of(self.model, e.prompts, len(e.ids), e.code).repeat(w.shape[1])
            for e in (a, b)
        )
        return one.lerp(two, w.flatten())

    def _codes(self, a: Endpoint, b: Endpoint, w: Float[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Return a path of clean codes of a model without a sampler."""
        push: Callable[[Tensor], Tensor] = self.model.push
        if a.images is not None and b.images is not None:
            return self.mix(self.model.encode(a.images), self.model.encode(b.images), w)
        if self.space is Space.STYLE:
            return self.mix(push(self.noise(a)), push(self.noise(b)), w)
        path = self.mix(self.noise(a), self.noise(b), w)
        return push(path.flatten(0, 1)).unflatten(0, path.shape[:2])
