"""Linear algebra on two codes: what a learned operator must beat."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, Steps, between
from latentbench.sampling import linear
from methods.recombination.two_codes import TwoCodes

Rule = Literal["first", "mean", "sum", "slerp", "regression"]


class CodeAlgebra(TwoCodes):
    """Makes one code of two by a formula, the same for all operators, or by a linear map for each.

    * "first": a, the first image's code: its reconstruction, which everything else stands beside.
    * "mean": (a + b) / 2, what the authors of pOps show beside their own results.
    * "sum": a + (b - mean of all codes).
    * "slerp": half of the way on the arc from a to b.
    * "regression": the affine map of (a, b) that is nearest to the answers in the least squares.

    Source: baselines of "pOps: Photo-Inspired Diffusion Operators", whose abstract calls linear
    operations unpredictable; the regression is this suite's.

    Args:
        rule: as above.
        images: of the generators' split that make the triplets.
        steps: sampling steps; default: the model's, where it has any.

    Example:
        >>> method = CodeAlgebra(rule="sum")  # method.fit(data, edits); method.combine(a, b, edit)
    """

    paper = "pOps: Photo-Inspired Diffusion Operators, baselines"
    small: ClassVar[Mapping[str, Any]] = {"images": 16}

    def __init__(
        self,
        *,
        rule: Rule = "mean",
        images: Annotated[Count, between(2, 1_000_000)] = 2048,
        steps: Steps | None = None,
    ) -> None:
        self.rule: Rule = rule
        self.images, self.steps = images, steps
        self.learned_ = {}

    def learn(
        self,
        name: str,
        a: Float[Tensor, "n d"],
        b: Float[Tensor, "n d"],
        c: Float[Tensor, "n d"],
    ) -> Mapping[str, Tensor]:
        """Return the affine map, where the rule is one."""
        if self.rule != "regression":
            return {}
        told, answer = (v.double().cpu() for v in (_stacked(a, b), c))
        # On a GPU, `lstsq` takes for granted that no number of a code depends on the others.
        return {"map": torch.linalg.lstsq(told, answer).solution.to(c)}

    def operate(
        self, name: str, a: Float[Tensor, "r d"], b: Float[Tensor, "r d"], ids: Sequence[str]
    ) -> Float[Tensor, "r d"]:
        """Return the rule's code."""
        if self.rule == "first":
            return a
        if self.rule == "mean":
            return (a + b) / 2
        if self.rule == "sum":
            return a + b  # whitened: the mean is 0
        if self.rule == "slerp":
            return linear.slerp(a, b, torch.full((len(a), 1), 0.5).to(a))[:, 0]
        found = _stacked(a, b).double() @ self.learned(name)["map"].double()
        return found.to(a)


def _stacked(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    return torch.cat([a, b, torch.ones_like(a[:, :1])], 1)
