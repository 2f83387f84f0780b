"""The images of highest and lowest label, the same number from each class of a confounder."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.errors import BadInput


def extreme_rows(
    label: Float[Tensor, " n"], confounders: Float[Tensor, "n m"], count: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """Return the rows of the `count` lowest and of the `count` highest labels.

    With confounders, each of their 2^m combinations of low (at most 1/2) and high gives as many:
    "Discovering Interpretable Directions in the Semantic Latent Space of Diffusion Models", where
    half of each set is of either class.

    Raises:
        BadInput: `count` is not a multiple of the number of combinations, or one of them has too
            few images.

    Example:
        >>> low, high = extreme_rows(torch.tensor([0.3, 0.1, 0.9, 0.5]), torch.zeros(4, 0), 1)
        >>> low.tolist(), high.tolist()
        ([1], [2])
    """
    m = confounders.shape[1]
    own, rest = divmod(count, 2**m)
    if rest or not own:
        raise BadInput(
            f"{count} extremes cannot be balanced over {2**m} classes of {m} confounders; take a "
            f"multiple of {2**m}"
        )
    weights = 2 ** torch.arange(m, device=label.device)
    classes = ((confounders > 0.5).long() * weights).sum(1)
    low, high = [], []
    for k in range(2**m):
        members = (classes == k).nonzero().flatten()
        if len(members) < 2 * own:
            raise BadInput(
                f"a class of the confounders has {len(members)} of the fit's images, balance needs "
                f"{2 * own}; raise images or lower extremes"
            )
        order = members[label[members].argsort(stable=True)]
        low.append(order[:own])
        high.append(order[-own:])
    return torch.cat(low), torch.cat(high)
