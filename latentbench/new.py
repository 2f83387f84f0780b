"""`latentbench new KIND NAME`: write the file, the yaml and the test to start from."""

import importlib.util
import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from latentbench.errors import BadInput, unknown

TEMPLATES = Path(__file__).resolve().parent / "templates"
KINDS = ("method", "metric", "benchmark", "model")
# Where a kind belongs in the checkout: its file, its test. {room} is chosen by the author.
PLACES = {
    "method": ("methods/{room}/{name}.py", "tests/unit/methods/test_{name}.py"),
    "metric": ("metrics/{room}/{name}.py", "tests/unit/metrics/test_{name}.py"),
    "benchmark": ("benchmarks/{name}.py", "tests/unit/benchmarks/test_{name}.py"),
    "model": ("latentbench/models/{name}.py", "tests/unit/models/test_{name}.py"),
}
ROOMS = {"method": "editing", "metric": "pairs"}
ROWS = {  # what docs/ must say of it, under the first table that has such rows
    "method": (
        "docs/methods.md",
        "| `{name}` | noise | invert, edit | labels to edit | source | |",
    ),
    "metric": (
        "docs/metrics.md",
        "| `{name}` | mean absolute error | 0..1 | ↓ | truths | B | none | source |",
    ),
}
RUNS = {  # a quick cell with the new part, as the runner is told
    "method": "method={name} model=faces_ldm benchmark=attribute_editing_quick",
    "metric": "metric=[{name}] method=autoencode model=faces_vae benchmark=reconstruction_quick",
    "benchmark": "benchmark={name} method=ddim_inversion model=faces_ldm metric=[psnr]",
    "model": "model={name} method=lerp benchmark=interpolation_quick",
}


@dataclass(frozen=True)
class Written:
    """What was written, and what to do next.

    Args:
        files: the new files.
        next_steps: commands, one a line.
    """

    files: tuple[Path, ...]
    next_steps: tuple[str, ...]


def write(kind: str, name: str, root: Path, *, room: str = "", package: bool = False) -> Written:
    """Write a new part that works as it is.

    Args:
        kind: "method", "metric", "benchmark" or "model".
        name: its short name: the file's, the yaml's, and what users type.
        root: the checkout, or the folder in which a package of its own is made.
        room: folder of methods/ or metrics/ that it belongs to.
        package: make a plug-in package instead of files of the checkout.

    Raises:
        BadInput: an unknown kind or room, a name that cannot be one, or a file that exists.
    """
    if kind not in KINDS:
        raise unknown("kind of part", kind, KINDS)
    reserved = keyword.iskeyword(name) or keyword.iskeyword(_class_name(name))
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or reserved:
        raise BadInput(
            f"{name!r} cannot be the name of a {kind}: use lower-case letters, digits and "
            f"underscores, beginning with a letter, as in sdedit or aid_inner; no word of Python"
        )
    if package and importlib.util.find_spec(name) is not None:
        raise BadInput(f"a package {name!r} is installed, which the new one would hide; rename it")
    files = _package(kind, name, root) if package else _in_checkout(kind, name, root, room)
    for path in files:
        if path.exists():
            raise BadInput(f"{path} exists already; choose another name, or remove it first")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if not package and kind in ROWS:
        _add_row(kind, name, root)
    return Written(tuple(files), _next_steps(kind, name, root, files, package))


def _in_checkout(kind: str, name: str, root: Path, room: str) -> dict[Path, str]:
    """Return the texts of the new files by path, in the rooms of the checkout."""
    room = _room(kind, root, room)
    file, test = (place.format(room=room, name=name) for place in PLACES[kind])
    words = _words(kind, name, file.removesuffix(".py").replace("/", "."))
    return {
        root / file: _filled(f"{kind}.py", words),
        root / "conf" / kind / f"{name}.yaml": _filled(f"{kind}.yaml", words),
        root / test: _filled(f"{kind}_test.py", words),
    }


def _package(kind: str, name: str, root: Path) -> dict[Path, str]:
    """Return the texts of the new files by path, as a package with an entry point."""
    own, words = root / name, _words(kind, name, f"{name}.{kind}")
    return {
        own / "pyproject.toml": _filled("package_pyproject.toml", words),
        own / name / "__init__.py": f'"""A {kind} for latentbench."""\n',
        own / name / f"{kind}.py": _filled(f"{kind}.py", words),
        own / name / "conf" / "__init__.py": "",
        own / name / "conf" / kind / f"{name}.yaml": _filled(f"{kind}.yaml", words),
        own / "tests" / f"test_{name}.py": _filled(f"{kind}_test.py", words),
    }


def _room(kind: str, root: Path, room: str) -> str:
    if kind not in ROOMS:
        if room:
            raise BadInput(f"a {kind} has no room to choose; leave --room out")
        return ""
    rooms = sorted(p.parent.name for p in (root / f"{kind}s").glob("*/__init__.py"))
    chosen = room or ROOMS[kind]
    if chosen not in rooms:
        raise unknown(f"room of {kind}s/", chosen, rooms)
    return chosen


def _words(kind: str, name: str, module: str) -> Mapping[str, str]:
    return {
        "kind": kind,
        "name": name,
        "module": module,
        "cls": _class_name(name),
        "title": name.replace("_", " ").capitalize(),
    }


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
    return Template(text).substitute(words)


def _add_row(kind: str, name: str, root: Path) -> None:
    """Add a row to the kind's page, below the last row of its first table of such parts."""
    file, row = ROWS[kind]
    path = root / file
    lines = path.read_text(encoding="utf-8").split("\n")
    first = next(k for k, line in enumerate(lines) if line.startswith("| `"))
    end = next(k for k in range(first, len(lines)) if not lines[k].startswith("|"))
    lines.insert(end, row.format(name=name))
    path.write_text("\n".join(lines), encoding="utf-8")


def _next_steps(
    kind: str, name: str, root: Path, files: Mapping[Path, str], package: bool
) -> tuple[str, ...]:
    test = next(path for path in files if path.name.startswith("test_"))
    steps = [f"pip install -e {root / name}"] if package else []
    steps += [f"python -m pytest {test}"]
    steps += [f"latentbench check {name}"] if kind == "method" else []
    return (*steps, f"python runner.py {RUNS[kind].format(name=name)}")
