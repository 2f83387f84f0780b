"""Letting a method learn, or taking what it learned in another cell."""

from collections.abc import Mapping, Sequence

import torch

from latentbench.benchmark import Bench
from latentbench.cells.plan import Cell
from latentbench.cells.progress import display
from latentbench.content import content_hash
from latentbench.editor import Editor
from latentbench.types import Edit


def fit(cell: Cell, bench: Bench) -> None:
    """Let the method learn, or take what it learned in another cell."""
    editor, edits = cell.editor, cell.benchmark.edits(bench.dataset)
    if type(editor).fit is Editor.fit:
        return
    display.phase("fitting")

    def learn() -> Mapping[str, torch.Tensor]:
        with torch.enable_grad():
            editor.fit(bench.dataset, edits)
        return editor.state()

    editor.load_state(bench.cache.get_or_make("fit", fit_key(cell, bench, edits), learn))


def fit_key(cell: Cell, bench: Bench, edits: Sequence[Edit]) -> str:
    """Return a hash of all that a fit depends on."""
    own = {key: cell.identity["config"][key] for key in ("method", "dataset", "seed")}
    networks = [bench.model, *cell.editor.parts.values()]
    versions = [type(part).version for part in (cell.editor, bench.dataset, *networks)]
    return content_hash(
        [network.fingerprint() for network in networks],
        bench.model.image_size,
        own,
        [(edit.name, edit.attribute, edit.sign, edit.component, edit.words) for edit in edits],
        versions,
        cell.identity["data"],
    )
