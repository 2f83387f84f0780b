"""Windows of strips in which a judge can read: those that hold one thing in their middle."""

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from latentbench.content import content_hash
from latentbench.data.strips import windows_in
from latentbench.metric import Surroundings
from latentbench.zoo.answers import PROJECTORS
from metrics.jackknife import Array
from metrics.networks.reader import Reader

STEP = 4  # pixels between the places that are tried
APART = 5 / 6  # of the pitch, by which windows lie apart at least
SKY = 1 / 16  # of the height, at the top, that shows what is behind things
GROUND = 13 / 16  # of the height, below which neighbours show what is shared
RECENT = "strip windows"


class StripWindows:
    """Finds the windows of a strip that look most like the things that judges read in them.

    Judges know one aligned face. A window is tried at each place: the face that `PROJECTORS` read
    in it is drawn, and compared with the window where the neighbours do not reach. Of all sets of
    windows that lie apart, as many as always fit into a strip, the one is taken whose mean absolute
    difference is least.

    The sides of a window, where neighbours reach, are covered by the colour that its upper edge has
    for the most part, down to the shirts: else judges take what a neighbour wears for background.

    Args:
        surroundings: gives the judges, and the data set that draws.

    Attributes:
        count: windows of a strip.
    """

    def __init__(self, surroundings: Surroundings, width: int) -> None:
        self.surroundings, self.data = surroundings, surroundings.dataset
        self.readers = [Reader(name, surroundings) for name in PROJECTORS]
        self.side = int(self.data.render_members(self._no_member())[0].shape[-1])
        self.margin = (self.side - self.data.pitch) // 2
        self.count = windows_in(width, self.side, self.data.pitch)

    def find(self, strips: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n k"]:
        """Return the first column of each window, from left to right."""
        recent = self.surroundings.recent
        key = content_hash(RECENT, strips)
        if key not in recent:
            recent[key] = self._find(strips)
        return recent[key]

    def cut(
        self, strips: Float[Tensor, "n 3 h w"], places: Int[Tensor, "n k"]
    ) -> Float[Tensor, "n k 3 h s"]:
        """Return the windows at these places, their sides covered."""
        rows = [
            torch.stack([strip[..., left : left + self.side] for left in lefts])
            for strip, lefts in zip(strips, places.tolist(), strict=True)
        ]
        return self._covered(torch.stack(rows))

    def drawn(self, windows: Float[Tensor, "*n 3 h s"]) -> Float[Tensor, "*n 3 h s"]:
        """Return the things that are read in windows, drawn."""
        read = torch.stack([reader.factors(windows) for reader in self.readers]).mean(0)
        return self.data.render_members(read.flatten(0, -2)).unflatten(0, read.shape[:-1])

    def _find(self, strips: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n k"]:
        tried = self._covered(strips.unfold(3, self.side, STEP).permute(0, 3, 1, 2, 4))
        middle = slice(self.margin, self.side - self.margin)
        gap = (tried - self.drawn(tried))[..., middle].abs().mean((2, 3, 4)).double().numpy()
        apart = max(1, round(APART * self.data.pitch / STEP))
        return STEP * torch.tensor(np.stack([best_apart(row, self.count, apart) for row in gap]))

    def _covered(self, windows: Float[Tensor, "*n 3 h s"]) -> Float[Tensor, "*n 3 h s"]:
        top, bottom = round(SKY * self.side), round(GROUND * self.side)
        colour = windows[..., :top, :].flatten(-2).median(-1).values[..., None, None]
        found = windows.clone()
        for sides in (slice(None, self.margin), slice(self.side - self.margin, None)):
            found[..., :bottom, sides] = colour
        return found

    def _no_member(self) -> Float[Tensor, "1 f"]:
        return torch.zeros(1, len(self.data.member_factors))


def best_apart(cost: Array, count: int, apart: int) -> npt.NDArray[np.int64]:
    """Return as many places as are asked for, at least so far apart, of the least total cost.

    Args:
        cost: of each place ``[n]``.
        count: how many places; n must have room for them.
        apart: least difference of two of them.

    Example:
        >>> best_apart(np.array([3.0, 0.0, 1.0, 0.5, 2.0]), count=2, apart=2).tolist()
        [1, 3]
    """
    total, before = cost.astype(float), []
    for _ in range(count - 1):
        least, at = np.full(len(cost), np.inf), np.zeros(len(cost), dtype=int)
        for k in range(apart, len(cost)):
            at[k] = int(np.argmin(total[: k - apart + 1]))
            least[k] = total[at[k]]
        before.append(at)
        total = cost + least
    places = [int(np.argmin(total))]
    for at in reversed(before):
        places.append(int(at[places[-1]]))
    return np.array(places[::-1])
