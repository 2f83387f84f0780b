"""How far an edit is from its answer, as a judge reads both: for metrics and for protocols.

The answer is the rendered image that was asked for. A judge reads it as it reads the output, so
what the judge reads wrong in both cancels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from latentbench.batching import map_batches
from latentbench.data.dataset import Dataset
from latentbench.data.faces import FACTOR_NAMES
from latentbench.types import Capability
from latentbench.zoo.judges import Judge

PROJECTORS = ("zoo2", "zoo3")  # judges the mean of whose readings says what face an image shows
READ = 16  # images a judge sees at once


def read_factors(
    images: Float[Tensor, "b s 3 h w"], judges: Sequence[Judge]
) -> Float[Tensor, "b s f"]:
    """Return the mean of the factors that judges read on images, in [0, 1]."""
    rows = images.flatten(0, 1)
    read = [map_batches(judge.factors, rows, READ) for judge in judges]
    return torch.stack(read).mean(0).unflatten(0, images.shape[:2])


def is_drawn(dataset: Dataset) -> bool:
    """Return whether the data set draws faces of the factors that judges read."""
    drawn = Capability.COUNTERFACTUALS in dataset.gives
    return drawn and tuple(dataset.factor_names) == FACTOR_NAMES


def factor_distance(
    read: Float[Tensor, "b s f"],
    answer: Float[Tensor, "b s f"],
    source: Float[Tensor, "b _ f"],
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
    """Return distances to an answer that is a thing, there or not: half of the way does not count.

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
