"""Which package may import which: a table, and the files that keep to it.

Late imports and those of type checkers count as well. To add an import that the table does
not allow moves the code to where it belongs, or changes the table and says why in the commit.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    *("latentbench", "methods", "metrics", "benchmarks", "agreement", "calibration"),
    "hydra_plugins", "docs",
)  # fmt: skip

# Rooms of more than one module or of another name; any other module or folder of latentbench is a
# room of its own, and so is each package of the checkout.
SHARED = {
    "vocabulary": "types errors streams processes store content cache batching config weights "
    "parameterization records intervals means statistics metric_state bounds annotations option "
    "fitting paths module_state command plugin_folders index prompt_tokens",
    "nouns": "editor benchmark metric",
    "doors": "cli check new",
}
# A room may import itself and what is listed here.
ALLOWED = {
    "vocabulary": "",
    "model": "vocabulary",
    "data": "vocabulary",
    "sampling": "vocabulary model",
    "models": "vocabulary model sampling",
    "zoo": "vocabulary model data sampling models",
    "nouns": "vocabulary model data zoo",
    "reports": "vocabulary",
    "plugins": "vocabulary",
    "cells": "vocabulary model data models zoo nouns reports plugins",
    "conformance": "vocabulary model data sampling models nouns",
    "doors": "vocabulary model data models zoo nouns reports plugins cells conformance",
    "runner": "vocabulary plugins cells",
    "methods": "vocabulary model data sampling models nouns",
    "metrics": "vocabulary data zoo nouns",
    "benchmarks": "vocabulary model data sampling models zoo nouns",
    "hydra_plugins": "",  # launchers that any application can use
    "agreement": "vocabulary data zoo nouns metrics",
    "calibration": "vocabulary nouns reports metrics",
    "docs": "vocabulary reports cells",  # the generator of the documentation's pages
}
# Modules that a room may not import although it may import their room: module -> who may not.
CLOSED = {
    "latentbench.data.faces": "nouns",
    "latentbench.zoo.judges": "methods reports",
}
# Imports that are still to be cut: (importing module, imported module). A test fails on an entry
# that is no longer needed.
KNOWN: set[tuple[str, str]] = set()


class Import(NamedTuple):
    """One import between modules of the checkout."""

    module: str
    imported: str
    place: str  # file and line


def files() -> list[Path]:
    found = [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]
    return [*found, ROOT / "runner.py"]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path) for path in files()}


def imports(source: str, module: str, place: str) -> Iterator[Import]:
    """Yield what a file imports from the checkout, wherever in the file it does so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in dict.fromkeys(_targets(node)):
                if name.split(".")[0] in (*PACKAGES, "runner"):
                    yield Import(module, name, f"{place}:{node.lineno}")


def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield imported modules: ``from a import b`` imports a.b if there is one. Ruff bans dots."""
    for alias in node.names:
        if isinstance(node, ast.Import):
            yield alias.name
        else:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in MODULES else str(node.module)


def room(module: str) -> str:
    """Return the room of a module: its package, or the part of latentbench that holds it."""
    package, _, rest = module.partition(".")
    if package != "latentbench":
        return package
    own = rest.split(".")[0]
    return next((name for name, modules in SHARED.items() if own in modules.split()), own)


def allowed(found: Import) -> bool:
    ours, theirs = room(found.module), room(found.imported)
    closed = ours in CLOSED.get(found.imported, "").split()
    return ours == theirs or (theirs in ALLOWED[ours].split() and not closed)


@cache
def every_import() -> list[Import]:
    each = ((p.read_text(), name_of(p), str(p.relative_to(ROOT))) for p in files())
    return [found for file in each for found in imports(*file)]


def complaints(found: Iterable[Import]) -> list[str]:
    """Return a line per import that the table does not allow."""
    return [
        f"{i.place}: {i.module} imports {i.imported}; {room(i.module)} may import: "
        f"{ALLOWED[room(i.module)] or 'nothing'}"
        for i in found
        if not allowed(i) and (i.module, i.imported) not in KNOWN
    ]


def test_every_module_is_in_a_room_of_the_table():
    strangers = {m for m in MODULES - {"latentbench"} if room(m) not in ALLOWED}
    assert not strangers, "give each a row in ALLOWED, or a place in SHARED"


def test_imports_run_downwards():
    wrong = complaints(every_import())
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("pair", sorted(KNOWN), ids="-".join)
def test_an_import_that_is_still_to_be_cut_is_still_there(pair):
    found = {(i.module, i.imported) for i in every_import() if not allowed(i)}
    assert pair in found, "it is gone: take it out of KNOWN"


def test_the_table_has_an_order():
    """No two rooms may import each other, directly or through others."""
    done: set[str] = set()
    while ready := {r for r in ALLOWED if r not in done and done >= set(ALLOWED[r].split())}:
        done |= ready
    assert done == set(ALLOWED)


def test_modules_do_not_import_each_other_in_a_circle():
    below: dict[str, set[str]] = {module: set() for module in MODULES}
    for i in every_import():
        below[i.module].add(i.imported)
    while free := {m for m, needed in below.items() if not needed & below.keys()}:
        below = {m: needed for m, needed in below.items() if m not in free}
    assert not below, f"among these modules some import each other: {sorted(below)}"


@pytest.mark.parametrize(
    ("source", "module", "line"),
    [
        ("import metrics.sets.fid", "latentbench.types", 1),
        ("from methods.editing import sdedit", "latentbench.zoo.judges", 1),
        ("from latentbench import streams, editor", "latentbench.records", 1),
        ("from latentbench.cells.cell import run_cell", "latentbench.reports.boards", 1),
        ("def f():\n    from latentbench.cells import cell", "latentbench.models.unet", 2),
        ("if TYPE_CHECKING:\n    import latentbench.reports.boards", "latentbench.zoo.judges", 2),
        ("from latentbench.zoo.judges import load_judge", "methods.editing.sdedit", 1),
        ("from latentbench.cells import catalogue", "metrics.sets.fid", 1),
    ],
)
def test_an_import_that_runs_up_is_found_with_its_line(source, module, line):
    (wrong,) = complaints(imports(source, module, "file.py"))
    assert wrong.startswith(f"file.py:{line}: {module} imports ")
