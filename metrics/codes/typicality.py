"""`typical_*`: how unlikely is a noise under the law that the sampler expects?"""

from torch import Tensor

from latentbench.metric import Figure, SampleMetric
from latentbench.types import Samples

FIGURES = {
    "typical_mean": Figure("|mean of the noise|, in standard errors", "sd", 0.0, None, None),
    "typical_norm": Figure("(|z|² - d) / sqrt(2 d)", "sd", None, None, None),
    "typical_lag1": Figure("correlation of neighbours, in standard errors", "sd", None, None, None),
}


class Typicality(SampleMetric):
    """Three standardised statistics of x_T: true noise has values of about 1 and less.

    `typical_mean` is |mean| sqrt(d), 0.8 on average for true noise; `typical_norm` (|z|² - d) /
    sqrt(2 d) and `typical_lag1`, the correlation of horizontal neighbours times sqrt of their
    number, are 0 ± 1. A shift that looks slight per pixel is often far outside: a mean of 0.05
    at 3 x 64 x 64 is 5.5 standard errors.

    Source: moments of the standard normal law; this suite's companion of shifted noise.

    Example:
        >>> list(Typicality().figures)
        ['typical_mean', 'typical_norm', 'typical_lag1']
    """

    needs = frozenset({"noise"})
    source = "moments of N(0, I), standardised"

    @property
    def figures(self) -> dict[str, Figure]:
        """Mean, norm and correlation."""
        return dict(FIGURES)

    def values(self, samples: Samples) -> dict[str, Tensor]:
        """Return the figures of each noise ``[b]``."""
        assert samples.noise is not None
        z = samples.noise.cpu().double()
        flat = z.flatten(1)
        d = flat.shape[1]
        mean, norm = flat.mean(1), (flat.square().sum(1) - d) / (2 * d) ** 0.5
        left, right = z[..., :-1].flatten(1), z[..., 1:].flatten(1)
        scale = (left.square().mean(1) * right.square().mean(1)).sqrt()
        lag = (left * right).mean(1) / scale * left.shape[1] ** 0.5
        return dict(zip(FIGURES, (mean.abs() * d**0.5, norm, lag), strict=True))
