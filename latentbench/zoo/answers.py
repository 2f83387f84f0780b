"""How far an edit is from its answer, as a judge reads both: for metrics and for protocols.

The answer is the rendered image that was asked for. A judge reads it as it reads the output, so
what the judge reads wrong in both cancels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def factor_distance(
    read: Float[Tensor, "b s f"],
    answer: Float[Tensor, "b s f"],
    source: Float[Tensor, "b 1 f"],
    weights: Float[Tensor, " f"],
    things: Bool[Tensor, "b 1 f"],
) -> Float[Tensor, "b s"]:
    """Return the weighted root mean square over all factors of reading minus reading of the answer.

    Args:
        read: factors read on outputs, in [0, 1].
        answer: those read on the answers.
        source: those read on the sources.
        weights: how much each factor counts, as `latentbench.zoo.judges.reliability` gives it.
        things: factors that the edit asks for and that say whether a thing is there: see
            `without_ghosts`.

    Example:
        >>> x, half = torch.zeros(1, 1, 4), torch.full((1, 1, 4), 0.5)
        >>> factor_distance(x, half, x, torch.ones(4), torch.zeros(1, 1, 4) > 0)
        tensor([[0.5000]])
    """
    gap, whole = (read - answer).abs(), (source - answer).abs()
    gap = torch.where(things, without_ghosts(gap, whole.expand_as(gap)), gap)
    return ((weights * gap.square()).sum(-1) / weights.sum()).sqrt()


def without_ghosts(
    distance: Float[Tensor, "*n"], whole: Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """Return distances to an answer that is a thing, there or not: half of the way is no way.

    Nobody asks for half-visible glasses. What covers up to half of the way counts as nothing done,
    from there on twice: min(2 distance, whole), but never less than the distance itself.

    Args:
        distance: of outputs to the answer.
        whole: of the sources to the answer.

    Example:
        >>> without_ghosts(torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0]), torch.ones(5)).tolist()
        [0.0, 0.5, 1.0, 1.0, 2.0]
    """
    return torch.maximum(distance, torch.minimum(2 * distance, whole))
