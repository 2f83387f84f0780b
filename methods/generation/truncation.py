"""The truncation trick: latents are drawn towards the middle of the prior."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.bounds import Count, above, at_most
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput, Incompatible
from latentbench.types import Edit, Space
from methods.generation.changed_prior import (
    ChangedPrior,
    Where,
    centre,
    coded,
    placed,
    pooled_noise,
)


class Truncation(ChangedPrior):
    """w' = mean(w) + psi (w - mean(w)): less variety, and images nearer to the usual one.

    Source: "A Style-Based Generator Architecture for Generative Adversarial Networks", appendix B.
    Noise of a denoiser, and of a VAE, is scaled: its mean is 0.

    Deviations: w is truncated in all layers; the mean is that of a pool, not a running one.

    Args:
        psi: share of the way from the mean; 1 is plain sampling.
        space: "code", what a generator without a sampler makes of noise (w of a GAN), or "noise".
        pool: latents that the mean of w is taken over.

    Example:
        >>> method = Truncation(psi=0.7)  # method.fit(data, []); method.generate(("a",), None)
    """

    paper = "A Style-Based Generator Architecture for GANs, appendix B"
    small: ClassVar[Mapping[str, int]] = {"pool": 100}

    def __init__(
        self,
        *,
        psi: Annotated[float, above(0), at_most(1)] = 0.7,
        space: Where = "code",
        pool: Count = 10_000,
    ) -> None:
        super().__init__()
        self.psi, self.pool = psi, pool
        self.space: Where = space

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Take the mean of the space."""
        model = self.model
        drawn = pooled_noise(self.streams, model, self.pool)
        codes = (coded(model, noise, self.space) for noise in drawn)
        self.learned_ = {"centre": centre(model, codes, self.space)}

    def changed(self, noise: Float[Tensor, "b ..."], ids: Sequence[str]) -> Mapping[Space, Tensor]:
        """Return the truncated codes.

        Raises:
            BadInput: nothing is fitted.
            Incompatible: the generator takes noise of any length for the same.
        """
        if not self.learned_:
            raise BadInput("truncation knows no mean yet; call fit, or load_state")
        middle, code = self.learned_["centre"], coded(self.model, noise, self.space)
        if self.space == "noise" and self.psi < 1:
            self._refuse_any_length(noise)
        return placed(self.model, middle + self.psi * (code - middle), self.space)

    def _refuse_any_length(self, noise: Tensor) -> None:
        """Refuse a mapping network that normalises its input."""
        same = coded(self.model, noise, "code"), coded(self.model, noise / 2, "code")
        if torch.allclose(*same, rtol=1e-3, atol=1e-4):
            raise Incompatible(
                f"{type(self.model).__name__} normalises its noise, so that noise scaled by "
                f"{self.psi:g} gives the same images; choose method.space=code"
            )
