"""Is inverted noise Gaussian and white?"""

from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from latentbench.bounds import Count, between
from latentbench.intervals import Kind
from latentbench.metric import Figure, SampleMetric
from latentbench.statistics import add_note
from latentbench.types import Samples, Score
from metrics.jackknife import groups, of_pairs, replicated_score, too_few

FEWEST = 8  # samples below which a correlation over samples says nothing
SHAPIRO_MOST = 5000  # entries of one test
SIMULATIONS = 5  # draws of true noise, for the floor

FIGURES = {
    "noise_mean": Figure("mean of a map; 0 for true noise"),
    "noise_std": Figure("standard deviation of a map; 1 for true noise", low=0.0),
    "noise_kurtosis": Figure("excess kurtosis of a map; 0 for true noise"),
    "noise_kl": Figure(
        "KL divergence of N(mean, std) of a map from N(0, 1)", "nats", 0, None, False
    ),
    "noise_shapiro": Figure(
        "share of maps that pass Shapiro-Wilk at 5%", "", 0.0, 1.0, True, Kind.RATE
    ),
    "noise_patch_correlation": Figure(
        "mean of the largest correlations inside a patch", "", 0.0, 1.0, False
    ),
    "noise_neighbour_r2": Figure(
        "mean squared correlation of neighbouring pixels, without bias", "", None, 1.0, False
    ),
}


class NoiseStatistics(SampleMetric):
    """Gaussianity and spatial correlation of inverted noise.

    Per map: mean, std, excess kurtosis, KL(N(mean, std^2) || N(0, 1)) = (std^2 + mean^2 - 1) / 2 -
    log std, and whether Shapiro-Wilk accepts (p > 0.05) at most 5000 entries. Over the maps of all
    images: inside each patch of `patch` pixels with all channels, the mean of the `topk` largest
    absolute Pearson correlations, averaged over patches; and the mean over neighbouring pixels of
    r^2 - 1 / (n - 1), whose expectation is 0 for true noise at every n.

    The patch correlation has a floor that falls with n: the note gives it, from seeded true noise
    of the same n and shape, with its standard deviation. No resampling interval is valid for it.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", correlation and normality of latents. Deviation: Shapiro-Wilk
    draws its entries without replacement, the same places in every map.

    Args:
        patch: pixels per side of a patch.
        topk: number of largest correlations in a patch.

    Example:
        >>> list(NoiseStatistics().figures)[:2]
        ['noise_mean', 'noise_std']
    """

    needs = frozenset({"noise"})
    source = "There and Back Again, correlation and normality of latents"

    def __init__(self, *, patch: Annotated[int, between(2, 128)] = 8, topk: Count = 20) -> None:
        super().__init__()
        self.patch, self.topk = patch, topk

    @property
    def figures(self) -> dict[str, Figure]:
        """Moments, tests and correlations."""
        return FIGURES

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each map ``[b]``."""
        assert samples.noise is not None
        x = samples.noise.cpu().double().flatten(1)
        mean, std = x.mean(1), x.std(1, correction=0)
        kurtosis = ((x - mean[:, None]) / std[:, None]).pow(4).mean(1) - 3
        kl = (std.square() + mean.square() - 1) / 2 - std.log()
        values = (mean, std, kurtosis, kl, accepted(x))
        return dict(zip(FIGURES, values, strict=False))

    def kept(self, samples: Samples) -> dict[str, Tensor]:
        """Return the maps."""
        assert samples.noise is not None
        return {"noise": samples.noise.float()}

    def compute(self) -> dict[str, Score]:
        """Return all scores; correlations need 8 images."""
        return super().compute() | self._correlations()

    def _correlations(self) -> dict[str, Score]:
        order = self.seen.order()
        noise, ids = self.seen.column("noise")[order], [self.seen.ids[k] for k in order]
        n = len(set(ids))
        if n < FEWEST:
            short = Score(None, n, note=f"{n} images, at least {FEWEST} needed")
            return {"noise_patch_correlation": short, "noise_neighbour_r2": short}
        found = {"noise_neighbour_r2": neighbour_score(noise, ids)}
        if min(noise.shape[2:]) < self.patch:
            size = tuple(noise.shape[2:])
            return found | {
                "noise_patch_correlation": Score(None, n, note=f"maps of {size} hold no patch")
            }
        return found | {"noise_patch_correlation": self._patch_score(noise, n)}

    def _patch_score(self, noise: Float[Tensor, "n c h w"], n: int) -> Score:
        value = patch_correlation(noise, self.patch, self.topk)
        if not np.isfinite(value):
            return _constant(n)
        floor = [
            patch_correlation(_true_noise(noise.shape, seed), self.patch, self.topk)
            for seed in range(SIMULATIONS)
        ]
        note = f"true noise of this n and shape: {np.mean(floor):.4g} +- {np.std(floor):.2g} (sd)"
        return Score(value, n, note=f"{note}; no interval: resampling raises correlations")


def accepted(maps: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Return 1 where Shapiro-Wilk has p > 0.05 on at most 5000 entries, else 0; a constant is 0."""
    places = torch.randperm(maps.shape[1], generator=torch.Generator().manual_seed(0))
    drawn = maps[:, places[:SHAPIRO_MOST]].numpy()
    passed = [np.ptp(row) > 0 and stats.shapiro(row).pvalue > 0.05 for row in drawn]
    return torch.tensor(passed, dtype=torch.float64)


def patch_correlation(noise: Float[Tensor, "n c h w"], patch: int, topk: int) -> float:
    """Return the mean of the largest |r| over samples inside each patch, mean over patches.

    Example:
        >>> round(patch_correlation(torch.ones(8, 1, 8, 8) * torch.randn(8, 1, 1, 1), 8, 20), 6)
        1.0
    """
    blocks = noise.double().unfold(2, patch, patch).unfold(3, patch, patch)
    n, c, rows, columns = blocks.shape[:4]
    blocks = blocks.permute(2, 3, 0, 1, 4, 5).reshape(rows * columns, n, c * patch * patch)
    above = torch.triu_indices(blocks.shape[2], blocks.shape[2], 1)
    pairs = (torch.corrcoef(block.T)[above[0], above[1]].abs() for block in blocks)
    largest = [r.topk(min(topk, len(r))).values.mean() for r in pairs]
    return float(torch.stack(largest).mean())


def neighbour_r2(noise: Float[Tensor, "n c h w"]) -> float:
    """Return the mean over neighbouring pixels of r^2 - 1 / (n - 1), r over samples.

    Example:
        >>> round(neighbour_r2(torch.ones(11, 1, 4, 4) * torch.randn(11, 1, 1, 1)), 3)
        0.9
    """
    x = noise.double() - noise.double().mean(0)
    x = x / x.square().sum(0).sqrt()
    right = (x[..., 1:] * x[..., :-1]).sum(0).square().flatten()
    down = (x[:, :, 1:] * x[:, :, :-1]).sum(0).square().flatten()
    return float(torch.cat([right, down]).mean() - 1 / (len(x) - 1))


def neighbour_score(noise: Float[Tensor, "n c h w"], ids: list[str]) -> Score:
    """Return `neighbour_r2` with its jackknife interval."""
    n, value, why_not = len(set(ids)), neighbour_r2(noise), too_few(ids)
    if not np.isfinite(value):
        return _constant(n)
    if why_not:
        return add_note(Score(value, n), why_not)
    group = groups(ids)
    replicates = of_pairs(lambda kept: neighbour_r2(noise[torch.from_numpy(np.isin(group, kept))]))
    return replicated_score(value, n, replicates)


def _constant(n: int) -> Score:
    return Score(None, n, note="some entries are the same in all maps: no correlation")


def _true_noise(shape: torch.Size, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
