"""Gradient descent on one tensor per image, each with a loss and a stop of its own."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def descend(
    start: Float[Tensor, "b ..."],
    evaluate: Callable[[Tensor], tuple[Float[Tensor, " b"], Tensor]],
    *,
    rate: float,
    iterations: int,
    enough: Float[Tensor, " b"],
) -> tuple[Float[Tensor, "b ..."], Tensor]:
    """Return (x, what was made of it) after Adam steps on each image's own loss.

    A row stays where it is once its loss is low enough; the evaluations end when all rows stay. A
    batch is evaluated as a whole until then, so that a row's bytes do not depend on its neighbours'
    stops.

    Args:
        start: first x.
        evaluate: x -> (loss of each row, what was made of it); called once per iteration, and once
            for the result.
        rate: learning rate.
        iterations: Adam steps at most.
        enough: loss at which a row stops.

    Example:
        >>> square = lambda x: (x.square().sum(1), x)
        >>> x, _ = descend(torch.ones(1, 2), square, rate=0.1, iterations=50, enough=torch.ones(1))
        >>> bool((x.square().sum(1) <= 1).all())
        True
    """
    x = start.detach().clone().requires_grad_()
    adam, moving = torch.optim.Adam([x], lr=rate), torch.ones_like(enough, dtype=torch.bool)
    for k in range(iterations + 1):
        with torch.set_grad_enabled(k < iterations):
            losses, made = evaluate(x)
        moving = moving & (losses.detach() > enough)
        if k == iterations or not bool(moving.any()):
            return x.detach(), made.detach()
        (x.grad,) = torch.autograd.grad(losses, x, torch.ones_like(losses))
        before = x.detach().clone()
        adam.step()
        with torch.no_grad():
            x.copy_(torch.where(moving.reshape(-1, *[1] * (x.dim() - 1)), x, before))
    raise AssertionError("unreachable: the last iteration returns")
