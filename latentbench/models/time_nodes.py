"""Early times that a network is told a block at a time, as E-TSDM does it.

Source: "Lipschitz Singularities in Diffusion Models", the early timestep-shared model. Nodes
0 = t_0 < t_1 < ... < t_n = t_tilde split the early times into blocks; of a time t below t_tilde the
network is told f(t) = max {t_i : t_i <= t}, of a later one t itself. Noise levels and all of a
sampler's coefficients are those of t.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Num
from torch import Tensor

from latentbench.errors import BadInput
from latentbench.parameterization import Grid


def left_ends(times: Num[Tensor, " n"], nodes: Sequence[float]) -> Num[Tensor, " n"]:
    """Return f(t) of times, in their own dtype, rounded down where it is one of whole numbers.

    Args:
        times: t, in the model's timesteps.
        nodes: t_0 to t_n.

    Example:
        >>> left_ends(torch.tensor([150, 100, 99, 39, 20]), [0, 20, 40, 60, 80, 100]).tolist()
        [150, 100, 80, 20, 20]
    """
    t, ends = times.double(), torch.tensor(nodes, dtype=torch.float64, device=times.device)
    left = ends[(torch.bucketize(t, ends, right=True) - 1).clamp(min=0)]
    return torch.where(t < ends[-1], left, t).to(times.dtype)


def refuse_nodes(nodes: Sequence[float]) -> None:
    """Refuse nodes that do not rise from 0.

    Raises:
        BadInput: says what is allowed.
    """
    if len(nodes) < 2 or nodes[0] != 0 or any(b <= a for a, b in pairwise(nodes)):
        raise BadInput(
            f"model.time_nodes={list(nodes)} are no nodes of blocks: give two or more, rising "
            f"from 0, such as [0,20,40,60,80,100], or null"
        )


def refuse_unseen(grid: Grid, nodes: Sequence[float]) -> None:
    """Refuse a sampler of whose steps the network is told as it would be without nodes.

    Raises:
        BadInput: says which early times the sampler visits.
    """
    if not torch.equal(left_ends(grid.timesteps, nodes), grid.timesteps):
        return
    early = [t for t in grid.timesteps.tolist() if t < nodes[-1]]
    visited = f"visit {early} below {nodes[-1]:g}" if early else f"visit none below {nodes[-1]:g}"
    raise BadInput(
        f"model.time_nodes={list(nodes)} changes nothing of {grid.n} sampling steps, which "
        f"{visited}; take another number of steps (method.steps, model.steps), or other nodes"
    )
