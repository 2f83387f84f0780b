"""Editors whose strength is the share of the sampling steps that they make again."""

from collections.abc import Sequence

from latentbench.data.dataset import Dataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import DiffusionModel
from latentbench.parameterization import whole_steps


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
