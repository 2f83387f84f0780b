"""DDIB: one model's ODE carries an image to noise, another model's ODE carries that to its own."""

from collections.abc import Mapping
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Name, Steps, above, at_most
from latentbench.model import Convention, LatentModel
from latentbench.models.semantic import SemanticDiffusion
from latentbench.option import Option
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import generate, plain
from latentbench.types import Batch, Edit, Latent, Space
from methods.editing.steps_back import TranslatingEditor
from methods.inversion.cycle_diffusion import refuse_other_levels


class DualBridges(TranslatingEditor):
    """x_l = ODESolve(x_s; v_s, 0, l), then x_t = ODESolve(x_l; v_t, l, 0).

    Source: "Dual Diffusion Implicit Bridges for Image-to-Image Translation", algorithm 1. Both
    models are trained apart; they share latents and levels, and nothing else. There and back again
    is exact up to the discretisation. The paper's l is 1, pure noise: here the strength, a share of
    the sampling steps. Deviations: DDIM steps, and no guidance. A source that inverts under a code
    of each image is skipped: its x_T holds only what the code leaves out.

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while inverting: "matched" as in DDIM,
            equation 13, or "next" as in diffusers' DDIMInverseScheduler.
        target_model: a yaml of conf/model: the denoiser of the other domain.
        max_strength: largest share of the steps.

    Raises:
        Incompatible: the models' latents or noise levels differ.

    Example:
        >>> editor = DualBridges(target_model="faces_lines")
    """

    paper = "Dual Diffusion Implicit Bridges for Image-to-Image Translation, algorithm 1"

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Convention = "matched",
        target_model: Name = "faces_lines",
        max_strength: Annotated[float, above(0), at_most(1)] = 1.0,
    ) -> None:
        self.steps, self.target_model = steps, target_model
        self.convention: Convention = convention
        self.max_strength = max_strength

    @classmethod
    def misfit(cls, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why the two models have no ODE to share, or None."""
        if issubclass(model, SemanticDiffusion):
            name = model.__name__
            return f"{name} inverts images under a code of each, which no target_model takes over"
        return super().misfit(model, others)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return the target model's images of what the source model has inverted."""
        source, target = self.model, self.parts["target_model"]
        refuse_other_levels(source, target, self.steps)
        grid, told = source.grid(self.steps), Latent({}, prompts=batch.prompts)
        x = ddim_trajectory(
            source, batch, self.cache, steps=self.steps, convention=self.convention,
            condition=None if batch.prompts is None else source.condition_of(told),
        )  # fmt: skip

        def from_level(start: int) -> Float[Tensor, "b 3 h w"]:
            if start == grid.n:
                return source.decode(x[:, start])
            code = Latent({Space.NOISE: x[:, start].to(target.device)}, start, edit.target_prompts)
            terms = plain(target.condition_of(code))
            return target.decode(
                generate(target, code.parts[Space.NOISE], terms, grid=grid, start=start)
            )

        return self.each(strengths, from_level)
