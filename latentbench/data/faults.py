"""How faults of files and rows are reported: all of them, in one message."""

from collections.abc import Sequence

from latentbench.errors import BadInput

SHOWN = 20  # lines of a message


def refuse(faults: Sequence[str], what: str, remedy: str, among: int | None = None) -> None:
    """Raise one error for all faults; do nothing where there are none.

    Args:
        faults: one line each, beginning with the file or the row.
        what: the things that have them, and what cannot be done ("images cannot be read").
        remedy: what to do.
        among: how many there are of these things, faulty or not; None where it says nothing.

    Raises:
        BadInput: the first lines, how many there are, and what to do.

    Example:
        >>> refuse(["a.png: the file is empty"], "images cannot be read", "remove them", 8)
        Traceback (most recent call last):
        ...
        latentbench.errors.BadInput: 1 of 8 images cannot be read:
          a.png: the file is empty
        remove them
    """
    if not faults:
        return
    lines = "".join(f"\n  {fault}" for fault in map(_writable, faults[:SHOWN]))
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    of = "the" if among is None else f"{among}"
    raise BadInput(f"{len(faults)} of {of} {what}:{lines}{more}\n{remedy}")


def _writable(text: str) -> str:
    """Return a text with what is not UTF-8, such as a byte of a file's name, as an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def shortened(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, and how many more there are.

    Example:
        >>> shortened(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
