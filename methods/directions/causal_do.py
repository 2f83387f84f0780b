"""Counterfactuals of a causal code: abduct what is exogenous, act, predict what follows."""

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Positive, Steps
from latentbench.models.causal_diffusion import CausalDiffusion
from latentbench.types import Capability, Edit
from methods.directions.vector_code import VectorCodeEditor


class CausalDo(VectorCodeEditor):
    """Sets one factor of a causal code and lets its effects follow: do(factor = value).

    Source: "Causal Diffusion Autoencoders: Toward Counterfactual Generation via Diffusion
    Probabilistic Models", counterfactual generation. With the structural equations
    z_i = f_i(z of the causes of i) + u_i and a factor k that is set to v:

        1. abduction:  u_i = z_i - f_i(z of the causes of i),  x_T = inversion of x under z
        2. action:     z'_k = z_k + s (z(v) - z_k)
        3. prediction: z'_i = f_i(z' of the causes of i) + u_i  for all i but k, causes first;
                       x' = DDIM(x_T; z')

    What k does not act on, directly or along a chain, comes out as it was. The strength s is the
    share of the way from the image's own z_k to z(v), that of the value asked for, 0 or 1.

    Deviations: the model says which z stands for a value, there constants are written into z;
    several of the published scripts do not solve the equations again, which is `propagate=false`.

    Args:
        propagate: let the effects follow; else they keep their z.
        steps: sampling steps; default: the model's.
        max_strength: largest share of a benchmark's curve.

    Example:
        >>> editor = CausalDo()  # editor.edit(batch, Edit("age+", "age"), strengths)
    """

    paper = "Causal Diffusion Autoencoders, counterfactual generation"
    families = (CausalDiffusion,)
    needs: ClassVar[Mapping[str, frozenset[Capability]]] = {"edit": frozenset({Capability.LABELS})}

    def __init__(
        self,
        *,
        propagate: bool = True,
        steps: Steps | None = None,
        max_strength: Positive = 1.5,
    ) -> None:
        self.propagate, self.steps, self.max_strength = propagate, steps, max_strength
        self.learned_ = {}

    def moved(
        self, code: Float[Tensor, "r d"], edit: Edit, strength: Float[Tensor, " r"]
    ) -> Float[Tensor, "r d"]:
        """Return z after the intervention; the strength's sign says which end is asked for."""
        value = 1.0 if edit.sign > 0 else 0.0
        return self.model.intervene(
            code, str(edit.attribute), value, strength * edit.sign, self.propagate
        )
