"""Linear interpolation of noise, and of prompt embeddings where the ends have prompts."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench import linear
from latentbench.editor import Editor
from latentbench.inversion import condition_of, ddim_invert
from latentbench.models.base import Condition, DiffusionModel
from latentbench.sampling import Intervention, generate, guided
from latentbench.types import Batch, Endpoint, Space


class LinearInterpolation(Editor):
    """Straight path between two noises: z = (1 - s) z_a + s z_b, decoded by DDIM.

    The norm shrinks to sqrt((1 - s)^2 + s^2), 0.707 in the middle: off the shell where noise
    lives, hence washed-out images. Prompts are interpolated per token ("text embedding
    interpolation"). Real images are DDIM-inverted first.

    Args:
        steps: sampling steps; default: the model's.
        guidance: guidance scale; default: the model's. Equal for all methods that are compared.

    Example:
        >>> path = LinearInterpolation(steps=20)  # path.interpolate(a, b, steps=11)
    """

    paper = "baseline; Denoising Diffusion Implicit Models, section 5.3, with a straight path"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"interpolate": frozenset({Space.NOISE})}
    model: DiffusionModel

    def __init__(self, *, steps: int | None = None, guidance: float | None = None) -> None:
        self.steps, self.guidance = steps, guidance

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
        x = self.mix(self.noise(a), self.noise(b), w).flatten(0, 1)
        guidance = model.guidance if self.guidance is None else self.guidance
        terms = guided(self.condition(a, b, w), model.condition(None, len(x)), guidance)
        grid, changes = model.grid(self.steps), self.interventions(w)
        images = model.decode(generate(model, x, terms, grid=grid, interventions=changes))
        return images.unflatten(0, w.shape)

    def noise(self, end: Endpoint) -> Float[Tensor, "b c h w"]:
        """Return x_T of one end: its noise, or its image inverted at guidance 1."""
        if end.images is None:
            assert end.noise is not None
            return end.noise.to(self.model.device)
        batch = Batch(end.ids, end.images)
        return ddim_invert(self.model, batch, self.cache, steps=self.steps, prompts=end.prompts)

    def condition(self, a: Endpoint, b: Endpoint, w: Float[Tensor, "b t"]) -> Condition:
        """Return the condition of every frame, rows ordered (path, frame)."""
        one, two = (
            condition_of(self.model, end.prompts, len(end.ids)).repeat(w.shape[1]) for end in (a, b)
        )
        return one.lerp(two, w.flatten())
