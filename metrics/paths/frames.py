"""Paths that are long enough to be measured."""

from latentbench.errors import NotMeasurable

FEWEST = 3  # frames of a path: two steps


def require_path(frames: int, asker: str) -> None:
    """Refuse paths that are too short for a metric.

    Args:
        frames: how many each path has.
        asker: name of the metric, which the message begins with.

    Raises:
        NotMeasurable: fewer than three frames.

    Example:
        >>> require_path(3, "PathSmoothness")
    """
    if frames < FEWEST:
        raise NotMeasurable(
            f"{asker} needs paths of at least {FEWEST} frames, got {frames}; take the "
            f"interpolation benchmark"
        )
