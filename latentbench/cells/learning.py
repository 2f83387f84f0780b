"""Letting a method learn, or taking what it learned in another cell."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from latentbench.benchmark import Bench
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.cells.fits import KIND, with_card, without_card
from latentbench.cells.parts import build
from latentbench.cells.plan import Cell
from latentbench.cells.progress import display
from latentbench.content import content_hash
from latentbench.editor import Editor
from latentbench.fitting import Fitting
from latentbench.streams import Streams
from latentbench.types import Edit


def fit(cell: Cell, bench: Bench) -> str:
    """Let the method learn, or take what it learned in another cell.

    Returns:
        The sha256 of the file that the fit was imported from, or "".
    """
    if type(cell.editor).fit is Editor.fit:
        return ""
    display.phase("fitting")
    return _learn(cell.editor, cell, bench, cell.config.seed)


def refitted(cell: Cell, bench: Bench, seed: int) -> Editor:
    """Return another instance of the method, fitted as a cell of that seed would."""
    editor = build(cell.config.method)
    place = Fitting(cell.store.folder / f"fit_{seed}", report=display.step, cell=cell.id)
    editor.attach(bench.model, Streams(seed), bench.cache, cell.editor.parts, place)
    if type(editor).fit is not Editor.fit:
        _learn(editor, cell, bench, seed)
    return CheckedEditor(editor)


def _learn(editor: Editor, cell: Cell, bench: Bench, seed: int) -> str:
    edits = cell.benchmark.edits(bench.dataset)
    key = fit_key(cell, bench, edits, seed)

    def learn() -> Mapping[str, torch.Tensor]:
        with torch.enable_grad():
            editor.fit(bench.dataset, edits)
        return with_card(editor.state(), _card(cell, edits, seed, key))

    state, imported = without_card(bench.cache.get_or_make(KIND, key, learn))
    editor.load_state(state)
    return imported


def _card(cell: Cell, edits: Sequence[Edit], seed: int, key: str) -> dict[str, Any]:
    """Return what a fit depends on, in words."""
    parts = {
        group: {"name": cell.blank.label(group), **cell.settings[group]}
        for group in ("method", "model", "dataset")
    }
    return {"key": key, **parts, "seed": seed, "edits": [edit.name for edit in edits]}


def fit_key(cell: Cell, bench: Bench, edits: Sequence[Edit], seed: int) -> str:
    """Return a hash of all that a fit depends on."""
    own = {key: cell.identity["config"][key] for key in ("method", "dataset")} | {"seed": seed}
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
