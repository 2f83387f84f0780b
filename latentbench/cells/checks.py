"""What is refused or skipped before any weight is read."""

from collections.abc import Mapping

from latentbench.cells.compatibility import Parts, reason_to_skip
from latentbench.cells.plan import Cell
from latentbench.errors import BadInput


def why_skipped(cell: Cell) -> str | None:
    """Return why its parts do not go together or cannot be scored, or None where they do."""
    parts = Parts(
        type(cell.editor),
        cell.parts["method"].settings,
        cell.parts["model"].cls,
        cell.dataset,
        cell.benchmark,
        cell.parts["benchmark"].settings,
    )
    return reason_to_skip(parts) or _unscored(cell)


def check(cell: Cell) -> None:
    """Refuse settings that do not fit the data, the model or each other; no weight is read.

    Raises:
        BadInput: says what came, what is allowed and what to do.
    """
    benchmark, editor, data = cell.benchmark, cell.editor, cell.dataset
    if not any(benchmark.count(group, data) for group in benchmark.groups(data)):
        raise BadInput(
            f"{type(benchmark).__name__} has no row on {type(data).__name__}: none of its groups "
            f"has an image there; raise dataset.limit, or take another data set"
        )
    benchmark.check(data)
    model, steps = cell.parts["model"], getattr(editor, "steps", None)
    model.cls.check(model.settings, steps)
    strengths = [s for s in benchmark.curve(editor.max_strength) if s]
    editor.check(data, steps or model.settings.get("steps"), strengths)


def listed(reasons: Mapping[str, str | None]) -> str:
    """Return reasons by name in one line."""
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def _unscored(cell: Cell) -> str | None:
    """Return why no metric can give a figure, or None where one can."""
    folder, data = cell.places.weights, cell.dataset
    reasons = {name: m.missing(folder) or m.unfed(data) for name, m in cell.metrics.items()}
    return None if None in reasons.values() else f"no metric gives a figure: {listed(reasons)}"
