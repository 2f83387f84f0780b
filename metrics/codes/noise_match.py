"""Do noises belong to their samples, and do inverted noises have the distribution of true ones?"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Num

from latentbench.metric import Figure
from latentbench.types import Score
from metrics.codes.code_metric import CodeMetric, Mask, jackknifed
from metrics.jackknife import Array


class NoiseMatch(CodeMetric):
    """Who is whose nearest neighbour among noises and samples; Gaussians of true and found noise.

    `match_noise` is the share of samples x_0 whose nearest true noise z, among those of all samples
    and by Euclidean distance, is their own; `match_sample` the share of noises whose nearest sample
    is their own. The number of samples belongs to both figures: among n unrelated ones the share is
    1 / n. `noise_kl_pooled` is KL(N(m, s^2) || N(m^, s^^2)), with means and standard deviations
    over all entries of z and of the inverted z^; `noise_kl_coordinates` the mean of the same over
    entries, each with moments over the samples, which is near 2 / n for noises that have nothing to
    do with each other.

    Source: Staniszewski et al., "There and Back Again: On the relation between Noise and Image
    Inversions in Diffusion Models", assignment of noises to samples by distance, and the published
    code's KL divergences. Deviation: all samples are candidates, there an eighth of them.

    Example:
        >>> list(NoiseMatch().figures)[:2]
        ['match_noise', 'match_sample']
    """

    needs = frozenset({"noise", "codes", "other_codes"})
    source = "There and Back Again, assignment by distance, normality"
    fewest = 8

    @property
    def figures(self) -> dict[str, Figure]:
        """Both shares and both divergences."""
        return {
            "match_noise": Figure("share of samples whose nearest noise is theirs", "", 0.0, 1.0),
            "match_sample": Figure("share of noises whose nearest sample is theirs", "", 0.0, 1.0),
            "noise_kl_pooled": Figure(
                "KL divergence of the Gaussians of true and inverted noise",
                "nats",
                0.0,
                None,
                False,
            ),
            "noise_kl_coordinates": Figure(
                "the same for each entry, mean over entries", "nats", 0.0, None, False
            ),
        }

    def scores(self, rows: Mapping[str, Array], ids: Sequence[str]) -> dict[str, Score]:
        """Return both shares and both divergences, with jackknife intervals."""
        z, x0, found = (rows[name] for name in ("codes", "other_codes", "noise"))
        between = distances(x0, z)

        def statistic(kept: Mask) -> dict[str, float]:
            own = np.arange(int(kept.sum()))
            part = between[np.ix_(kept, kept)]
            return {
                "match_noise": float((part.argmin(1) == own).mean()),
                "match_sample": float((part.argmin(0) == own).mean()),
                "noise_kl_pooled": gaussian_kl(z[kept].reshape(-1, 1), found[kept].reshape(-1, 1)),
                "noise_kl_coordinates": gaussian_kl(z[kept], found[kept]),
            }

        return jackknifed(statistic, ids)


def distances(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> Num[np.ndarray, "n m"]:
    """Return squared Euclidean distances between rows.

    Example:
        >>> distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
        [[25.0, 1.0]]
    """
    return (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)[None]


def gaussian_kl(true: Float[np.ndarray, "n d"], found: Float[np.ndarray, "n d"]) -> float:
    """Return the mean over columns of KL(N(m, s^2) || N(m^, s^^2)), moments over rows.

    log(s^ / s) + (s^2 + (m - m^)^2) / (2 s^^2) - 1/2; NaN where a column does not vary.

    Example:
        >>> x = np.array([[-1.0], [1.0]])
        >>> round(gaussian_kl(x, x + 1), 6), gaussian_kl(x, x)
        (0.5, 0.0)
    """
    m, s, m2, s2 = true.mean(0), true.std(0), found.mean(0), found.std(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = np.log(s2 / s) + (s**2 + (m - m2) ** 2) / (2 * s2**2) - 0.5
    return float(kl.mean()) if np.isfinite(kl).all() else float("nan")
