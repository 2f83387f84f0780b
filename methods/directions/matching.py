"""Names for unsupervised directions: which component goes with which label."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def match_components(
    scores: Float[Tensor, "n k"], labels: Float[Tensor, "n a"]
) -> tuple[Int[Tensor, " a"], Float[Tensor, " a"]]:
    """Return, per label, the component that correlates most with it, and the correlation's sign.

    Args:
        scores: how far each image is along each component.
        labels: known factors of the same images.

    Example:
        >>> scores = torch.tensor([[0.0, 3.0], [1.0, 2.0], [0.0, 1.0]])
        >>> match_components(scores, torch.tensor([[0.1], [0.2], [0.3]]))
        (tensor([1]), tensor([-1.]))
    """
    together = torch.corrcoef(torch.cat([scores, labels.to(scores)], 1).T)
    r = together[: scores.shape[1], scores.shape[1] :].nan_to_num()  # a constant goes with nothing
    best = r.abs().argmax(0)
    return best, r.gather(0, best[None])[0].sign()
