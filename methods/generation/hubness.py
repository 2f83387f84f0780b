"""Hubness sampling: latents that are among the nearest neighbours of many others."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.bounds import Count, between
from latentbench.data.dataset import Dataset
from latentbench.errors import BadInput
from latentbench.types import Edit, Space
from methods.generation.changed_prior import (
    POOLED,
    ChangedPrior,
    Where,
    centre,
    coded,
    placed,
    pooled_noise,
)

LEAST = 0.001  # share of a pool that must be hubs, so that candidates are found


class HubnessSampling(ChangedPrior):
    """Makes images of hubs alone, latents that many others have among their nearest neighbours.

    Source: "Exploring and Exploiting Hubness Priors for High-Quality GAN Latent Sampling", and the
    authors' code.

        1. r_k(j) = |w_j - its k-th nearest neighbour|,  j in a pool of s latents w_1 .. w_s
        2. N_k(i) = #{j : w_i is among the k nearest neighbours of w_j}
        3. hubs   = {i : N_k(i) >= t}
        4. N_k(w) = #{j : |w - w_j| < r_k(j)}  of a candidate w

    The pool is fixed for a seed; distances are Euclidean, in the space; N_k is the k-occurrence.
    An image's latent is its own first draw that is a hub, by 4, which is what the draw would have
    as one of the pool. So there are as many hubs as images, no two the same, and none depends on
    which other images are made.

    Deviations: 4; no latent is its own neighbour (in the authors' code each is, so that their k
    is one more); t is the quantile of the pool's N_k unless it is given: with few dimensions no
    latent reaches the published 50.

    In noise of many dimensions nearly all latents of a hub's length are hubs, so there are none of
    the same length to compare with that are not. The control is what hubs' place alone does:
    `keep=matched` moves each image's own latent to its hub's distance from the mean.

    Args:
        pool: s.
        k: neighbours of each latent.
        share: of the pool, at most, that are hubs.
        threshold: t; None: by `share`.
        space: "code", what a generator without a sampler makes of noise (w of a GAN), or "noise".
        keep: "hubs", or "matched", the control.

    Raises:
        BadInput: a pool with too few neighbours.

    Example:
        >>> method = HubnessSampling(pool=1000, share=0.05)
        >>> # method.fit(data, []); method.generate(("a",), None)
    """

    paper = "Exploring and Exploiting Hubness Priors for High-Quality GAN Latent Sampling"
    small: ClassVar[Mapping[str, float]] = {"pool": 200, "share": 0.2}

    def __init__(
        self,
        *,
        pool: Count = 10_000,
        k: Count = 5,
        share: Annotated[float, between(LEAST, 0.5)] = 0.01,
        threshold: Count | None = None,
        space: Where = "code",
        keep: Literal["hubs", "matched"] = "hubs",
    ) -> None:
        if pool <= k:
            raise BadInput(
                f"method.pool={pool} latents have no {k} neighbours each; raise method.pool or "
                f"lower method.k"
            )
        super().__init__()
        self.pool, self.k, self.share, self.threshold = pool, k, share, threshold
        self.keep = keep
        self.space: Where = space

    def fit(self, data: Dataset, edits: Sequence[Edit]) -> None:
        """Draw the pool, and find its neighbours and the threshold.

        Raises:
            BadInput: hardly any latent of the pool reaches the threshold.
        """
        codes = self._codes()
        counts, radii = k_occurrence(codes, self.k)
        t = smallest_count(counts, self.share) if self.threshold is None else self.threshold
        hubs = int((counts >= t).sum())
        if self.threshold is not None and hubs < max(1, LEAST * self.pool):
            raise BadInput(
                f"{hubs} of {self.pool} latents are among the {self.k} nearest neighbours of "
                f"method.threshold={t} others, the most frequent of {int(counts.max())}; lower it, "
                f"or leave it out for method.share"
            )
        middle = centre(self.model, [codes], self.space)
        threshold = torch.tensor(t, device=codes.device)
        self.learned_ = {"centre": middle, "radii": radii, "threshold": threshold}
        self.pool_ = codes

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what was learned of the pool, and draw it again."""
        super().load_state(state)
        self.pool_ = self._codes()

    def changed(self, noise: Float[Tensor, "b ..."], ids: Sequence[str]) -> Mapping[Space, Tensor]:
        """Return hubs, or the control.

        Raises:
            BadInput: nothing is fitted, or no candidate is a hub.
        """
        if not self.learned_:
            raise BadInput("hubness has no pool yet; call fit, or load_state")
        hubs = self.first_fitting(  # 3. N_k >= t
            noise, ids, lambda z: self.hubness(z) >= self.learned_["threshold"]
        )
        if self.keep == "hubs":
            return {Space.NOISE: hubs}
        middle = self.learned_["centre"]
        there, own = (coded(self.model, z, self.space) - middle for z in (hubs, noise))
        length = there.norm(dim=1, keepdim=True) / own.norm(dim=1, keepdim=True)
        return placed(self.model, middle + length * own, self.space)

    def hubness(self, noise: Float[Tensor, "b ..."]) -> Int[Tensor, " b"]:
        """Return N_k of candidates, each as one of the pool."""
        codes = coded(self.model, noise, self.space)
        # 4. of how many of the pool it would be a neighbour
        return (torch.cdist(codes, self.pool_) < self.learned_["radii"]).sum(1)

    def _codes(self) -> Float[Tensor, "s d"]:
        drawn = pooled_noise(self.streams, self.model, self.pool)
        return torch.cat([coded(self.model, noise, self.space) for noise in drawn])


def k_occurrence(
    codes: Float[Tensor, "s d"], k: int
) -> tuple[Int[Tensor, " s"], Float[Tensor, " s"]]:
    """Return N_k of each code, and how far its k-th neighbour is; no code is its own neighbour.

    Example:
        >>> counts, radii = k_occurrence(torch.tensor([[0.0], [1.0], [3.0]]), 1)
        >>> counts.tolist(), radii.tolist()
        ([1, 2, 0], [1.0, 1.0, 2.0])
    """
    counts, radii = torch.zeros(len(codes), dtype=torch.int64, device=codes.device), []
    for rows in torch.arange(len(codes), device=codes.device).split(POOLED):
        gaps = torch.cdist(codes[rows], codes)
        gaps[rows - rows[0], rows] = torch.inf
        near = gaps.topk(k, largest=False)
        # 2. how often each is a neighbour, and 1. how far the last of the own neighbours is
        counts += near.indices.flatten().bincount(minlength=len(codes))
        radii.append(near.values[:, -1])
    return counts, torch.cat(radii)


def smallest_count(counts: Int[Tensor, " s"], share: float) -> int:
    """Return the smallest t that at most this share of the counts reach; the largest if none is.

    Example:
        >>> smallest_count(torch.tensor([0, 1, 1, 5]), 0.25)
        2
    """
    largest = int(counts.max())
    allowed = share * len(counts) + 1e-9
    reached = [int((counts >= t).sum()) <= allowed for t in range(largest + 1)]
    return reached.index(True) if True in reached else largest
