"""Tables of shares, as Markdown."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Table:
    """Rows of text.

    Args:
        heads: titles of the columns.
    """

    def __init__(self, heads: Sequence[str]) -> None:
        self.rows = [list(heads), ["---"] * len(heads)]

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(list(cells))

    def markdown(self) -> str:
        """Return the table."""
        return "\n".join("| " + " | ".join(row) + " |" for row in self.rows) + "\n"


def share(hits: npt.ArrayLike, shown: float = 1.0) -> str:
    """Return a share with two digits, and in brackets of how many samples it is, if not of all.

    Example:
        >>> share(np.array([True, False]), 0.25)
        '.50 (.25)'
    """
    text = _digits(float(np.mean(np.asarray(hits))))
    return text if shown >= 0.995 else f"{text} ({_digits(shown)})"


def _digits(number: float) -> str:
    return f"{number:.2f}".removeprefix("0")
