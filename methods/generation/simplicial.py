"""Simplicial truncation: latents near a border between the modes' cells are left out."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.types import Edit, Space
from methods.generation.changed_prior import ChangedPrior, pooled_noise


class SimplicialTruncation(ChangedPrior):
    """Draws z inside one of m equidistant cells of the noise, away from the borders between them.

    Source: "Unveiling the Latent Space Geometry of Push-Forward Generative Models", simplicial
    clusters, and the authors' code. For u = z / ||z|| and centres e_j, one-hot vectors of length
    sqrt(d) on m axes drawn at random:

    1. p = softmax_j <u, e_j>.
    2. z is taken if max_j p_j > tau, else drawn again.

    Deviations: tau is the quantile of a pool at which the asked share of the prior is taken, as a
    fixed tau means little: it is another share for every d and m; the model is one that was trained
    on the whole prior, where the authors also train with this sampler; candidates are each
    image's own, and none that fits is an error, not a short batch.

    Args:
        modes: m, number of cells; at most the numbers of one noise.
        acceptance: share of the prior that lies inside.
        keep: "inside"; or "border", the control: what step 2 refuses.
        pool: latents that tau is the quantile of.

    Example:
        >>> method = SimplicialTruncation(modes=8, acceptance=0.5)
        >>> # method.fit(data, []); method.generate(("a",), None)
    """

    paper = "Unveiling the Latent Space Geometry of Push-Forward Generative Models"
    small: ClassVar[Mapping[str, int]] = {"pool": 200}

    def __init__(
        self,
        *,
        modes: Annotated[int, between(2, 10_000)] = 8,
        acceptance: Annotated[float, between(0.01, 0.99)] = 0.5,
        keep: Literal["inside", "border"] = "inside",
        pool: Count = 10_000,
    ) -> None:
        super().__init__()
        self.modes, self.acceptance, self.keep, self.pool = modes, acceptance, keep, pool

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Draw the axes, and find tau.

        Raises:
            BadInput: more cells than numbers of one noise.
        """
        d = prod(self.model.latent_shape)
        if self.modes > d:
            raise BadInput(
                f"method.modes={self.modes} cells need as many axes, and noise of this model has "
                f"{d} numbers; lower method.modes"
            )
        axes = torch.tensor(self.streams.choice("simplicial/axes", d, self.modes))
        axes = axes.to(self.model.device)
        drawn = pooled_noise(self.streams, self.model, self.pool)
        clear = torch.cat([clearness(noise.flatten(1), axes) for noise in drawn])
        self.learned_ = {"axes": axes, "tau": clear.quantile(1 - self.acceptance)}

    def changed(self, noise: Float[Tensor, "b ..."], ids: Sequence[str]) -> Mapping[Space, Tensor]:
        """Return noise of the cells, or of their borders.

        Raises:
            BadInput: nothing is fitted, or no candidate fits.
        """
        if not self.learned_:
            raise BadInput("simplicial has no cells yet; call fit, or load_state")
        axes, tau = self.learned_["axes"], self.learned_["tau"]
        inside = self.keep == "inside"
        return {
            Space.NOISE: self.first_fitting(
                noise, ids, lambda z: (clearness(z.flatten(1), axes) > tau) == inside
            )
        }


def clearness(z: Float[Tensor, "b d"], axes: Tensor) -> Float[Tensor, " b"]:
    """Return max_j p_j, how clearly noise lies in one cell: 1 / m at the point where all meet.

    Example:
        >>> clearness(torch.eye(4), torch.tensor([0, 1])).round(decimals=3)
        tensor([0.8810, 0.8810, 0.5000, 0.5000])
    """
    u = z / z.norm(dim=1, keepdim=True)
    return (u[:, axes] * z.shape[1] ** 0.5).softmax(1).amax(1)
