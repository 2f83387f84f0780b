"""The strongest directions of a Jacobian, from products with it alone."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import NotFinite
from latentbench.fitting import Fitting


def singular_directions(
    function: Callable[[Tensor], Tensor],
    at: Float[Tensor, "b ..."],
    start: Float[Tensor, "k ..."],
    *,
    iterations: int,
    tolerance: float,
    fitting: Fitting | None = None,
    name: str = "singular_directions",
) -> tuple[Float[Tensor, "b k ..."], Float[Tensor, "b k"]]:
    """Return the top k right singular vectors, and the singular values, of each row's Jacobian.

    Subspace iteration: U = J V, W = J^T U, and the right singular vectors of W are the next V. A
    row stops once every |<v, v'>| is within the tolerance of 1: a singular vector has no sign.
    Signs are then set so that v raises the mean of the function. Attention must have forward
    derivatives (`DiffusionModel.differentiable_attention`).

    Args:
        function: rows to rows, each of its own row alone.
        at: where the Jacobian is taken.
        start: k vectors to begin with, the same for all rows.
        iterations: at most.
        tolerance: of 1 - |<v, v'>|.
        fitting: keeps the iterations of a fit, which goes on with them after it was killed.
        name: of the iterations among those of the fit.

    Raises:
        NotFinite: products with the Jacobian overflow.

    Example:
        >>> scale = torch.tensor([1.0, 3.0])
        >>> start = torch.tensor([[1.0, 1.0]])
        >>> run = {"iterations": 50, "tolerance": 1e-6}
        >>> V, S = singular_directions(lambda x: x * scale, torch.zeros(1, 2), start, **run)
        >>> V.round(decimals=2).abs().tolist(), S.round(decimals=2).tolist()
        ([[[0.0, 1.0]]], [[3.0]])
    """
    b, k, shape = len(at), len(start), at.shape[1:]
    V = (
        torch.linalg.qr(start.flatten(1).T)
        .Q.T.to(at)
        .expand(b, -1, -1)
        .clone(memory_format=torch.contiguous_format)
    )
    S, done = at.new_zeros(b, k), torch.zeros(b, dtype=torch.bool, device=at.device)
    with torch.enable_grad():
        x = at.detach().requires_grad_()
        y = function(x)

    def rises(v: Tensor) -> Tensor:
        """Return J v."""
        with torch.no_grad():
            return torch.func.jvp(function, (at,), (v.reshape(at.shape).contiguous(),))[1]

    kept = {"V": V, "S": S, "done": done}
    for _ in (fitting or Fitting(None)).steps(name, iterations, kept):
        if bool(done.all()):
            continue
        U = [rises(V[:, j]) for j in range(k)]
        W = [torch.autograd.grad(y, x, u, retain_graph=True)[0].flatten(1) for u in U]
        found = torch.stack(W, 1)
        if not bool(found.isfinite().all()):
            raise NotFinite(
                "products with the Jacobian of the network overflow, as they may where it runs in "
                "float16; choose model.dtype=bfloat16 or float32"
            )
        _, squares, turned = torch.linalg.svd(found, full_matrices=False)
        settled = (V * turned).sum(2).abs().amin(1) >= 1 - tolerance
        V.copy_(torch.where(done[:, None, None], V, turned))
        S.copy_(torch.where(done[:, None], S, squares.sqrt()))
        done |= settled
    sign = torch.stack([rises(V[:, j]).flatten(1).mean(1) for j in range(k)], 1)
    V = V * torch.where(sign < 0, -1.0, 1.0)[..., None]
    return V.unflatten(2, shape), S
