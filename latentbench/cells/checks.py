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
    rows = sum(benchmark.count(group, data) for group in benchmark.groups(data))
    if not rows:
        raise BadInput(
            f"{type(benchmark).__name__} has no row on {type(data).__name__}: none of its groups "
            f"has an image there; raise dataset.limit, or take another data set"
        )
    fed = {name: cell.metrics[name] for name, reason in _unfed(cell).items() if not reason}
    short = {n: f"needs {m.fewest} images" for n, m in fed.items() if m.fewest > rows}
    if len(short) == len(fed):
        raise BadInput(
            f"no metric gives a figure of so few images, {rows}: {listed(short)}; raise "
            f"benchmark.n, or take another metric"
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
    reasons = _unfed(cell)
    return None if None in reasons.values() else f"no metric gives a figure: {listed(reasons)}"


def _unfed(cell: Cell) -> dict[str, str | None]:
    """Return by name why a metric lacks its weights or its data, None where it lacks nothing."""
    folder, data = cell.places.weights, cell.dataset
    return {name: m.missing(folder) or m.unfed(data) for name, m in cell.metrics.items()}
