"""Linear algebra that several methods share: paths between latents, PCA, orthogonal directions."""

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import BadInput

PARALLEL = 0.9995  # |cosine| above which slerp is lerp


def lerp(a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."], w: Float[Tensor, "... t"]) -> Tensor:
    """Return ``(1 - w) a + w b`` for every w, ``[b, t, ...]``; ends are exact.

    The weights are ``[t]``, the same for all rows, or ``[b, t]``.
    """
    weight = w.to(a).reshape(-1, w.shape[-1], *[1] * (a.dim() - 1))
    return (1 - weight) * a[:, None] + weight * b[:, None]


def slerp(
    a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."], w: Float[Tensor, "... t"]
) -> Tensor:
    """Return spherical interpolation of each whole sample, ``[b, t, ...]``; ends are exact.

    Each sample is one vector (not one per row or channel), in float64. Where the two are parallel
    (|cosine| > 0.9995) the arc is undefined and lerp takes its place. Weights as in `lerp`.

    Example:
        >>> a, b = torch.eye(2)[:1], torch.eye(2)[1:]
        >>> slerp(a, b, torch.tensor([0.5])).squeeze().tolist()
        [0.7071067690849304, 0.7071067690849304]
    """
    u, v, weight = a.double().flatten(1), b.double().flatten(1), w.to(a.device).double()
    cosine = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    parallel = cosine.abs() > PARALLEL
    theta = torch.where(parallel, torch.ones_like(cosine), cosine.clamp(-1, 1).arccos())[:, None]
    left = ((1 - weight) * theta).sin() / theta.sin()
    right = (weight * theta).sin() / theta.sin()
    left = torch.where(parallel[:, None], 1 - weight, left)
    right = torch.where(parallel[:, None], weight, right)
    path = left[..., None] * u[:, None] + right[..., None] * v[:, None]
    return path.reshape(len(a), -1, *a.shape[1:]).to(a.dtype)


def orthogonalise(
    direction: Float[Tensor, "..."], others: Float[Tensor, "k ..."]
) -> Float[Tensor, "..."]:
    """Return the direction without its part in the span of others: v - V (V^T V)^-1 V^T v.

    One inner product over the whole tensor; solves the k x k system, never forms the projector.
    """
    if len(others) == 0:
        return direction
    v, V = direction.double().flatten(), others.double().flatten(1)
    x = torch.linalg.lstsq(V @ V.T, V @ v).solution
    return (v - V.T @ x).reshape(direction.shape).to(direction.dtype)


def pca(rows: Float[Tensor, "n d"], components: int) -> tuple[Tensor, Tensor]:
    """Return unit components ``[k, d]`` and standard deviations ``[k]`` along them.

    After centring, the last of n singular values is zero and its vector noise, hence
    ``components <= n - 2``.
    """
    if components > len(rows) - 2:
        raise BadInput(f"{components} components need {components + 2} rows, got {len(rows)}")
    centred = rows - rows.mean(0)
    _, s, V = torch.linalg.svd(centred, full_matrices=False)
    return V[:components], s[:components] / (len(rows) - 1) ** 0.5
