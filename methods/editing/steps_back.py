"""Editors whose strength is the share of the sampling steps that they make again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel, LatentModel
from latentbench.models.semantic import SemanticDiffusion
from latentbench.option import Option
from latentbench.parameterization import whole_steps
from latentbench.sampling.blending import latent_mask
from latentbench.types import Capability, Edit, Space


class StepsBackEditor(Editor[DiffusionModel]):
    """Goes back by a share of the sampling steps, the strength, and makes them again."""

    steps: int | None

    def check(self, data: Dataset, steps: int | None, strengths: Sequence[float]) -> None:
        """Refuse strengths of less than a step."""
        if steps is not None:
            for strength in strengths:
                steps_back(strength, steps)

    def effective_strength(self, strength: float) -> float:
        """Return the share of the sampling steps that is made."""
        n = self.model.grid(self.steps).n
        return whole_steps(strength, n) / n

    def each(
        self,
        strengths: Float[Tensor, " s"],
        from_level: Callable[[int], Float[Tensor, "b 3 h w"]],
    ) -> Float[Tensor, "b s 3 h w"]:
        """Return one image per strength; strengths of the same number of steps share theirs.

        Args:
            strengths: shares of the sampling steps.
            from_level: returns the images that are made from a level of the grid on.

        Raises:
            BadInput: a strength of less than a step, and not 0.
        """
        n = self.model.grid(self.steps).n
        back = [steps_back(strength, n) for strength in strengths.tolist()]
        made = {k: from_level(n - k) for k in sorted({*back})}
        return torch.stack([made[k] for k in back], 1)


class MaskingEditor(StepsBackEditor):
    """Changes what is inside a mask alone: its own, or the edit's where `mask` is "given"."""

    mask: Literal["own", "given"]

    @classmethod
    def required(
        cls, verbs: Iterable[str], config: Mapping[str, Any]
    ) -> tuple[frozenset[Space], frozenset[Capability]]:
        """Return what the class asks for, and masks where they are to be given."""
        spaces, needs = super().required(verbs, config)
        given = frozenset({Capability.EDIT_MASKS}) if config.get("mask") == "given" else frozenset()
        return spaces, needs | given

    def given_mask(
        self, edit: Edit, x0: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b 1 h w"] | None:
        """Return the edit's mask in the latents' resolution; None where the method's own counts.

        Raises:
            BadInput: the edit has none.
        """
        if self.mask == "own":
            return None
        if edit.masks is None:
            raise BadInput("method.mask=given, but the edit has no masks; use method.mask=own")
        return latent_mask(edit.masks, x0)


class TranslatingEditor(StepsBackEditor):
    """Has the steps made by a model of another domain, the target model."""

    requires: ClassVar[Mapping[str, frozenset[Space]]] = {"edit": frozenset({Space.NOISE})}
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {
        "edit": frozenset({Capability.SECOND_MODEL})
    }
    others: ClassVar[Mapping[str, str]] = {"target_model": "model"}

    @classmethod
    def misfit(cls, model: type[LatentModel], others: Mapping[str, Option]) -> str | None:
        """Return why the target model cannot denoise what the source gives, or None."""
        target = others.get("target_model")
        if target is None:
            return None
        named = f"target_model={target.name} ({target.cls.__name__})"
        if not issubclass(target.cls, DiffusionModel):
            return f"{named} is no denoiser"
        if issubclass(target.cls, SemanticDiffusion):
            return f"{named} needs a code of its image besides noise"
        return None


def steps_back(strength: float, n: int) -> int:
    """Return how many of n steps a strength goes back.

    Raises:
        BadInput: less than a step, and not 0.
    """
    k = whole_steps(strength, n)
    if k == 0 and strength > 0:
        raise BadInput(
            f"strength {strength:g} is 0 of {n} sampling steps, strengths start at {1 / n:g}; "
            f"raise method.steps or method.max_strength, or lower benchmark.strengths"
        )
    return k
