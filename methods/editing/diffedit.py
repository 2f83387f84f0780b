"""DiffEdit: the two prompts' predictions say where to edit; the rest follows the inversion."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Guidance, Positive, Steps, above, at_most
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.model import Condition, Convention
from latentbench.parameterization import whole_steps
from latentbench.sampling.blending import KeepTrajectory
from latentbench.sampling.inversion import ddim_trajectory
from latentbench.sampling.loop import Term, generate, guided, noise_to_level, predict
from latentbench.types import Batch, Capability, Edit, Space
from methods.editing.steps_back import MaskingEditor

THRESHOLD = 0.5  # of the clamped map, at which a cell is inside


class DiffEdit(MaskingEditor):
    """Invert, decode under the target prompt from part of the way, keep what is outside a mask.

    Source: "DiffEdit: Diffusion-based semantic image editing with mask guidance", section 3.2. The
    mask: where |eps(x, c_target) - eps(x, c_reference)|, averaged over channels and over draws of
    the forward process at one level and clamped at `clamp` times its mean, is above half of its
    largest value. The strength is the paper's encoding ratio r: the share of the steps that are
    made again; 0 is decode(encode(x)).
    Deviations: outside the mask is the inversion at the level that the sample has reached (the
    published pipeline is one level behind, and does not return the source); the mean that the map
    is clamped with is each image's own, and a map that the clamp does not reach is scaled by its
    own maximum (there by the clamp, which can leave nothing to edit); a flow's velocities take the
    place of eps; the inversion goes all the way, so that it is shared with other methods.

    Args:
        steps: sampling steps; default: the model's.
        convention: timestep that the network receives while inverting.
        reference: what the target prompt is compared with and the image inverted under: each
            image's caption ("source") or the empty prompt ("empty").
        mask: "own", or "given", the edit's.
        draws: noises that the map is averaged over.
        mask_level: level of these noises, as a share of the steps from the clean end.
        clamp: multiple of the map's mean at which it is clamped.
        guidance: guidance scale towards the target prompt.
        max_strength: largest strength of a benchmark's curve.

    Example:
        >>> editor = DiffEdit(draws=10)  # editor.edit(batch, edit, torch.tensor([0.4, 0.8]))
    """

    paper = "DiffEdit: Diffusion-based semantic image editing with mask guidance, section 3.2"
    requires: ClassVar[Mapping[str, frozenset[Space]]] = {
        "edit": frozenset({Space.NOISE, Space.TEXT})
    }
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.PROMPTS, Capability.TARGET_PROMPTS})
    }

    def __init__(
        self,
        *,
        steps: Steps | None = None,
        convention: Convention = "matched",
        reference: Literal["source", "empty"] = "source",
        mask: Literal["own", "given"] = "own",
        draws: Count = 10,
        mask_level: Annotated[float, above(0), at_most(1)] = 0.5,
        clamp: Positive = 3.0,
        guidance: Guidance = 3.0,
        max_strength: Annotated[float, above(0), at_most(1)] = 0.8,
    ) -> None:
        self.steps, self.reference, self.mask = steps, reference, mask
        self.convention: Convention = convention
        self.draws, self.mask_level, self.clamp = draws, mask_level, clamp
        self.guidance, self.max_strength = guidance, max_strength

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse strengths, and a level of the mask's noises, of less than a step."""
        super().check(data, steps, strengths)
        if steps is not None and self.mask == "own":
            _mask_steps(self.mask_level, steps)

    def edit(
        self, batch: Batch, edit: Edit, strengths: Float[Tensor, " s"]
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return one image per strength; strength 0 is decode(encode(image))."""
        model, b = self.model, len(batch)
        source = model.condition(batch.prompts if self.reference == "source" else None, b)
        target = model.condition(edit.target_prompts, b)
        levels = ddim_trajectory(
            model, batch, self.cache,
            steps=self.steps, condition=source, convention=self.convention,
        )  # fmt: skip
        kept = [KeepTrajectory(levels, self._mask(batch, edit, levels[:, -1], source, target))]

        def from_level(start: int) -> Float[Tensor, "b 3 h w"]:
            z0 = generate(
                model, levels[:, start], guided(target, model.unconditional(b), self.guidance),
                grid=model.grid(self.steps), start=start, interventions=kept,
            )  # fmt: skip
            return model.decode(z0)

        return self.each(strengths, from_level)

    def _mask(
        self, batch: Batch, edit: Edit, x0: Tensor, source: Condition, target: Condition
    ) -> Float[Tensor, "b 1 h w"]:
        """Return 1 where the image may change."""
        given = self.given_mask(edit, x0)
        if given is not None:
            return given
        contrast = self.contrast(batch, x0, source, target)
        clamped = contrast.minimum(self.clamp * contrast.mean((1, 2), keepdim=True))
        return (clamped > THRESHOLD * clamped.amax((1, 2), keepdim=True))[:, None].to(x0)

    def contrast(
        self, batch: Batch, x0: Float[Tensor, "b c h w"], source: Condition, target: Condition
    ) -> Float[Tensor, "b h w"]:
        """Return the mean absolute difference of the two predictions."""
        model, grid, m = self.model, self.model.grid(self.steps), self.draws
        level = grid.n - _mask_steps(self.mask_level, grid.n)
        noise = self.streams.normal("diffedit", batch.ids, (m, *x0.shape[1:]), x0.device)
        x = noise_to_level(grid, x0.repeat_interleave(m, 0), noise.flatten(0, 1), level)
        terms = (Term("target", target.repeat(m)), Term("reference", source.repeat(m), -1.0))
        difference = grid.direction(*predict(model, x, grid, level, terms))
        return difference.abs().mean(1).unflatten(0, (-1, m)).mean(1)


def _mask_steps(share: float, n: int) -> int:
    """Return how many of n steps the level of the mask's noises is."""
    k = whole_steps(share, n)
    if k == 0:
        raise BadInput(
            f"method.mask_level={share:g} is 0 of {n} sampling steps, which begin at {1 / n:g}; "
            f"raise it, or raise method.steps"
        )
    return k
