"""Where the conf folders of plug-in packages lie, found without importing any of them."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

GROUP = "latentbench.conf"


def folders() -> Mapping[str, Path | None]:
    """Return the conf folder of each plug-in, or None where it has none, by ``name (package)``.

    No plug-in is imported: one whose code is broken still has its yamls, and harms no other.
    """
    points = sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value))
    return {f"{point.name} ({point.value})": _folder(point.value) for point in points}


def packages() -> Mapping[str, tuple[Path, ...]]:
    """Return the folders of each plug-in's whole package, by the package's name."""
    names = sorted({point.value.partition(".")[0] for point in entry_points(group=GROUP)})
    return {name: _places(name) for name in names}


def _folder(package: str) -> Path | None:
    top, _, inner = package.partition(".")
    found = [place.joinpath(*filter(None, inner.split("."))).resolve() for place in _places(top)]
    return next((folder for folder in found if folder.is_dir()), None)


def _places(top: str) -> tuple[Path, ...]:
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    return () if spec is None else tuple(map(Path, spec.submodule_search_locations or ()))
