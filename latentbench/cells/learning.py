"""Letting a method learn, or taking what it learned in another cell."""

from collections.abc import Mapping

import torch

from latentbench.benchmark import Bench
from latentbench.cache import CARD, IMPORTED
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.cells.fits import KIND
from latentbench.cells.plan import Cell
from latentbench.cells.progress import display
from latentbench.content import content_hash
from latentbench.editor import Editor
from latentbench.fitting import Fitting
from latentbench.metric_state import as_json, as_tensor
from latentbench.streams import Streams


def fit(cell: Cell, bench: Bench) -> str:
    """Let the method learn, or take what it learned in another cell.

    Returns:
        The sha256 of the file that the fit was imported from, or "".
    """
    if type(cell.editor).fit is Editor.fit:
        return ""
    display.phase("fitting")
    return _learn(cell.editor, cell, bench, cell.seed)


def refitted(cell: Cell, bench: Bench, seed: int) -> Editor:
    """Return another instance of the method, fitted as a cell of that seed would."""
    editor = cell.parts["method"].build()
    place = Fitting(cell.store.folder / f"fit_{seed}", report=display.step, cell=cell.id)
    editor.attach(bench.model, Streams(seed), bench.cache, cell.editor.parts, place)
    editor.card = cell.card
    if type(editor).fit is not Editor.fit:
        _learn(editor, cell, bench, seed)
    return CheckedEditor(editor)


def _learn(editor: Editor, cell: Cell, bench: Bench, seed: int) -> str:
    edits = cell.benchmark.edits(bench.dataset)
    own = {key: cell.identity["config"][key] for key in ("method", "dataset")} | {"seed": seed}
    networks = [bench.model, *cell.editor.parts.values()]
    versions = [type(part).version for part in (cell.editor, bench.dataset, *networks)]
    key = content_hash(
        [network.fingerprint() for network in networks],
        bench.model.image_size,
        own,
        [
            (edit.name, edit.attribute, edit.sign, edit.component, edit.words, *edit.factors)
            for edit in edits
        ],
        versions,
        cell.identity["data"],
    )
    card = {"key": key, **cell.card, "seed": seed, "edits": [edit.name for edit in edits]}

    def learn() -> Mapping[str, torch.Tensor]:
        with torch.enable_grad():
            editor.fit(bench.dataset, edits)
        return {**editor.state(), CARD: as_tensor(card)}

    state = bench.cache.get_or_make(KIND, key, learn)
    kept = as_json(state.pop(CARD)) if CARD in state else {}
    editor.load_state(state)
    return kept.get(IMPORTED, "")
