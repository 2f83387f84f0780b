"""The share of the sampling steps during which a direction acts."""

from latentbench.errors import BadInput


def refuse_empty(start: float, stop: float, steps: int | None) -> None:
    """Refuse a window [start, stop) of the sampling steps, from 0 to 1, in which no step lies.

    Args:
        start: share of the steps before it.
        stop: share of the steps up to its end.
        steps: number of sampling steps, or None where it is not known yet.

    Raises:
        BadInput: no step lies in it, whatever their number or of so many.

    Example:
        >>> refuse_empty(0.5, 1.0, 20)
    """
    if start >= stop:
        raise BadInput(
            f"no step is between method.start={start:g} and method.stop={stop:g}; raise method.stop"
        )
    if steps is not None and not any(start <= i / steps < stop for i in range(steps)):
        raise BadInput(
            f"none of the {steps} sampling steps lies between method.start={start:g} and "
            f"method.stop={stop:g}; widen the window or raise method.steps"
        )
