"""Editors whose strength is the share of the sampling steps that they make again."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

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
from latentbench.types import Capability, Space


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
