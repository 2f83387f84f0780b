"""Square windows on a wide canvas: cut it into them, and merge them into it again."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from latentbench.errors import BadInput


@dataclass(frozen=True)
class Views:
    """Windows that cover a canvas, row by row, from left to right.

    Args:
        height: of the canvas, in cells.
        width: of the canvas.
        window: side of a window.
        stride: from one window to the next.

    Raises:
        BadInput: windows that would leave cells of the canvas uncovered.

    Example:
        >>> views = Views(height=4, width=8, window=4, stride=2)
        >>> views.corners
        ((0, 0), (0, 2), (0, 4))
        >>> canvas = torch.rand(1, 3, 4, 8)
        >>> torch.allclose(views.merge(views.cut(canvas)), canvas)
        True
    """

    height: int
    width: int
    window: int
    stride: int

    def __post_init__(self) -> None:
        w, s = self.window, self.stride
        for name, side in (("high", self.height), ("wide", self.width)):
            if side < w or (side - w) % s or (s > w and side > w):
                raise BadInput(
                    f"windows of {w} cells every {s} do not cover a canvas that is {side} cells "
                    f"{name}; give a canvas of {w} + k x {s} cells, with a stride of at most {w}"
                )

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """First row and column of each window."""
        rows = range(0, self.height - self.window + 1, self.stride)
        columns = range(0, self.width - self.window + 1, self.stride)
        return tuple((top, left) for top in rows for left in columns)

    def __len__(self) -> int:
        return len(self.corners)

    def at(self, window: int) -> "Views":
        """Return the same windows where a network sees them in another resolution.

        Args:
            window: side of a window there; the corners must lie on its cells.
        """
        factor = self.window // window
        sides = (self.height, self.width, self.window, self.stride)
        return Views(*(side // factor for side in sides))

    def cut(self, canvas: Float[Tensor, "b c h w"]) -> Float[Tensor, "v c s s"]:
        """Return the windows of each canvas, one canvas after the other."""
        w = self.window
        parts = [canvas[..., top : top + w, left : left + w] for top, left in self.corners]
        return torch.stack(parts, 1).flatten(0, 1)

    def merge(self, windows: Float[Tensor, "v c s s"]) -> Float[Tensor, "b c h w"]:
        """Return the canvases: the mean over windows of each cell."""
        each = windows.unflatten(0, (-1, len(self)))
        total = windows.new_zeros(len(each), windows.shape[1], self.height, self.width)
        count = windows.new_zeros(self.height, self.width)
        for k, (top, left) in enumerate(self.corners):
            place = (..., slice(top, top + self.window), slice(left, left + self.window))
            total[place] += each[:, k]
            count[place] += 1
        return total / count
