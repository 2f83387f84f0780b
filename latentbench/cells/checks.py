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
    reason = reason_to_skip(parts)
    if reason is None and not cell.metrics:
        return f"no metric gives a figure: {listed(cell.switched_off)}"
    return reason


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
    short = {n: f"needs {m.fewest} images" for n, m in cell.metrics.items() if m.fewest > rows}
    if len(short) == len(cell.metrics):
        raise BadInput(
            f"no metric gives a figure of so few images, {rows}: {listed(short)}; raise "
            f"benchmark.n, or take another metric"
        )
    benchmark.check(data)
    model, steps = cell.parts["model"], editor.sampling_steps
    model.cls.check(model.settings, steps)
    strengths = [s for s in benchmark.curve(editor.max_strength) if s]
    editor.check(data, steps or model.settings.get("steps"), strengths)


def listed(reasons: Mapping[str, str]) -> str:
    """Return reasons by name in one line."""
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
