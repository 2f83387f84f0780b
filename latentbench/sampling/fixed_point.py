"""The implicit equation of an inversion step, solved by fixed-point iteration."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import BadInput

RIDGE = 1e-10  # of the least squares of Anderson acceleration, as a share of their diagonal


@dataclass(frozen=True)
class FixedPoint:
    """y = F(y) for the noisier latent y of a deterministic step, image by image.

    F(y) is the point from which the step with the prediction at y reaches the cleaner latent. The
    iterate of the smallest residual |F(y) - y| is taken, which is the last one where the iteration
    converges. F is affine in the prediction, so a mean of iterates is the step with the mean
    prediction.

    Sources: "ReNoise: Real Image Inversion Through Iterative Noising", section 3 (iteration and
    average); "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion"
    (Anderson acceleration).

    Args:
        iterations: evaluations beside the first guess.
        average: iterates [from, to) of which the mean is taken, 0 the first guess and
            `iterations` the last; None takes the best one.
        memory: earlier iterates that Anderson acceleration combines with the last; 0 is none.

    Example:
        >>> solver = FixedPoint(iterations=30)
        >>> round(float(solver.solve(torch.cos, torch.ones(1, 1))), 3)  # cos y = y
        0.739
    """

    iterations: int
    average: tuple[int, int] | None = None
    memory: int = 0

    def __post_init__(self) -> None:
        if self.average is not None:
            first, last = self.average
            if not 0 <= first < last <= self.iterations + 1:
                raise BadInput(
                    f"the average over iterates {first} to {last} (excluded) of a fixed-point "
                    f"iteration is not among 0 to {self.iterations + 1}; raise the iterations or "
                    f"lower the range"
                )

    def solve(
        self, step: Callable[[Tensor], Tensor], guess: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b ..."]:
        """Return y from a first guess."""
        y, best = guess, guess
        least = torch.full((len(guess),), torch.inf, device=guess.device)
        made, seen = [guess], []
        for _ in range(self.iterations):
            image = step(y)
            seen = [*seen[-self.memory :], (y, image)] if self.memory else []
            residual = (image - y).flatten(1).norm(dim=1)
            better = residual < least
            least = torch.where(better, residual, least)
            best = torch.where(better.reshape(-1, *[1] * (y.dim() - 1)), image, best)
            y = _anderson(seen) if self.memory else image
            made.append(y)
        return best if self.average is None else torch.stack(made[slice(*self.average)]).mean(0)


def _anderson(seen: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the combination of images F(y_k), weights summing to one, of the least residual."""
    if len(seen) == 1:
        return seen[0][1]
    images = torch.stack([image.flatten(1) for _, image in seen], -1)
    points = torch.stack([y.flatten(1) for y, _ in seen], -1)
    residuals = (images - points).double()
    changes = residuals.diff(dim=-1)  # [b, d, k - 1]
    gram = changes.mT @ changes
    ridge = (RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1)).clamp(min=1e-30)
    gram = gram + ridge[:, None, None] * torch.eye(gram.shape[-1]).to(gram)
    weights = torch.linalg.solve(gram, changes.mT @ residuals[..., -1:])  # [b, k - 1, 1]
    shift = images.diff(dim=-1) @ weights.to(images)
    return (images[..., -1] - shift[..., 0]).reshape(seen[0][1].shape)
