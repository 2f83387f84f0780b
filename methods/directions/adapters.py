"""Low-rank adapters of attention layers, one per image: which layers, their start, their use."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import Incompatible
from latentbench.model import DiffusionModel, LowRank
from latentbench.sampling.loop import Intervention, Step, Window
from latentbench.streams import Streams
from latentbench.types import Space

# what attention layers project with; in joint attention that is the image's tokens, those of text
# have projections of their own (".add_q_proj" and the like), which are left as they are
EVERY = (".to_q", ".to_k", ".to_v", ".to_out.0")
CROSS = (".attn2.to_k", ".attn2.to_v")  # how cross-attention reads the prompt


class Adapted(Intervention):
    """Low-rank changes of weights in a window of the steps.

    Args:
        changes: by linear layer, of all images alike or one per image.
        window: share of the steps in which they act.
    """

    def __init__(self, changes: Mapping[str, LowRank], window: Window = (0.0, 1.0)) -> None:
        self.changes, self.window = changes, window

    def low_rank(self, step: Step) -> Mapping[str, LowRank]:
        """Return the changes."""
        return self.changes


def layers_of(model: DiffusionModel, endings: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """Return the linear layers whose names end so: name -> numbers (in, out).

    Raises:
        Incompatible: the model has none, or its attention is joint and `CROSS` is asked for: there
            layers of such a name read image tokens alone.
    """
    if tuple(endings) == CROSS and Space.JOINT_ATTENTION in model.spaces:
        raise Incompatible(
            f"{type(model).__name__} has no cross-attention: image and text share layers, and one "
            f"whose name ends in {' or '.join(CROSS)} reads image tokens alone; choose other "
            f"layers or another model"
        )
    found = {n: size for n, size in model.linear_layers().items() if n.endswith(tuple(endings))}
    if not found:
        raise Incompatible(
            f"{type(model).__name__} has no linear layer whose name ends in "
            f"{' or '.join(endings)}; choose other layers or another model"
        )
    return found


def first_down(
    layers: Mapping[str, tuple[int, int]], count: int, rank: int, streams: Streams, stream: str
) -> dict[str, Float[Tensor, "k r i"]]:
    """Return random matrices that read a layer's input, by layer: ``U(-1, 1) / sqrt(in)``.

    Args:
        layers: name -> numbers (in, out).
        count: k, adapters.
        rank: r.
        streams: where they are drawn from.
        stream: name of the stream.
    """
    found = {}
    for name, (width, _) in layers.items():
        draws = torch.rand(count, rank, width, generator=streams.generator(stream, name))
        found[name] = (2 * draws - 1) / width**0.5
    return found
