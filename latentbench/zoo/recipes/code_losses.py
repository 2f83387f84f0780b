"""Loss terms on codes: how far they are from their prior."""

import torch
from jaxtyping import Float
from torch import Tensor


def squared_distances(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return |a_i - b_j|^2; differentiable at 0 as well."""
    return (a[:, None] - b[None]).square().sum(2)


def mmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return the unbiased squared maximum mean discrepancy of two samples, 0 on average if alike.

    Source: "A Kernel Two-Sample Test", lemma 6, with the kernel exp(-|x - y|^2 / 2 s^2), where s^2
    is the median squared distance between different points of both samples. InfoDiffusion's code
    has the biased estimate and s^2 = d^2 / 2, at which the kernel is nearly flat for long codes.

    Example:
        >>> x, y = torch.zeros(2, 1), torch.ones(2, 1)
        >>> round(mmd(x, y).item(), 4)  # 2 - 2 exp(-1/2)
        0.7869
    """
    both = torch.cat([a, b])
    with torch.no_grad():
        apart = squared_distances(both, both)
        rows, columns = torch.triu_indices(len(both), len(both), 1)
        s2 = apart[rows, columns].median().clamp(min=1e-12)
    within_a, within_b, across = (
        torch.exp(-squared_distances(x, y) / (2 * s2)) for x, y in ((a, a), (b, b), (a, b))
    )
    return _off_diagonal_mean(within_a) + _off_diagonal_mean(within_b) - 2 * across.mean()


def _off_diagonal_mean(kernel: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    n = len(kernel)
    return (kernel.sum() - kernel.diagonal().sum()) / (n * (n - 1))


def gaussian_kl(
    mean: Float[Tensor, "n d"],
    log_variance: Float[Tensor, "n d"],
    prior_mean: Float[Tensor, "#n d"] | float = 0.0,
) -> Float[Tensor, " n"]:
    """Return KL(N(mean, variance) || N(prior_mean, I)) in nats, summed over each row.

    Example:
        >>> zeros = torch.zeros(1, 4)
        >>> gaussian_kl(zeros + 1.0, zeros).item()
        2.0
    """
    gap = (mean - prior_mean).square()
    return 0.5 * (gap + log_variance.exp() - log_variance - 1).sum(1)
