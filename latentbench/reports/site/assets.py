"""Scripts and style sheets: our own, and DataTables and Vega from the packages that ship them."""

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from vl_convert import javascript_bundle

from latentbench import store
from latentbench.content import content_hash
from latentbench.errors import LatentbenchError
from latentbench.index import FOLDER
from latentbench.reports.site.contents import Contents
from latentbench.reports.site.pieces import Piece

EMBED = "window.vegaEmbed = vegaEmbed;"
EXPORTS = re.compile(r"export\s*\{([^{}]*)\};?")


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield our own files, and the bundles of DataTables and Vega."""
    del contents
    for entry in sorted(files("latentbench.reports.site").joinpath("static").iterdir(), key=str):
        name, data = f"assets/{entry.name}", entry.read_bytes()
        yield Piece(name, None, lambda name=name, data=data: {name: data})
    yield Piece("assets/datatables", version("itables"), _datatables)
    yield Piece("assets/vega", version("vl-convert-python"), _vega)


def _datatables() -> dict[str, bytes]:
    module = files("itables").joinpath("html", "dt_bundle.js").read_text(encoding="utf-8")
    return {"assets/datatables.js": as_script(module, "DataTable").encode()}


@cache
def _vega() -> dict[str, bytes]:
    """Return the bundle, which takes seconds to make and so is kept in the checkout's cache."""
    key = f"vega of vl-convert {version('vl-convert-python')}: {EMBED}"
    place = FOLDER / "scripts" / f"{content_hash(key)[:16]}.sealed"
    script = store.read_sealed(place, key)
    if script is None:
        script = javascript_bundle(EMBED).encode()
        with suppress(OSError):  # made again next time
            store.write_sealed(place, key, script)
    return {"assets/vega.js": script}


def as_script(module: str, name: str) -> str:
    """Return a module as a script that sets a global to the module's default export.

    Browsers load no module from a file.

    Args:
        module: its text, which imports nothing.
        name: of the global.

    Raises:
        LatentbenchError: it does not have one list of exports with a default.

    Example:
        >>> as_script("var a = 1; export{a as default};", "One")
        '"use strict";(()=>{var a = 1; globalThis.One=a;})();'
    """
    found = EXPORTS.findall(module)
    default = re.search(r"([\w$]+)\s+as\s+default\b", found[0]) if len(found) == 1 else None
    if default is None:
        raise LatentbenchError(
            f"the script of {name} has {len(found)} lists of exports, or no default; pages need "
            f"one: install the version of the package that uv.lock names"
        )
    body = EXPORTS.sub(f"globalThis.{name}={default[1]};", module)
    return f'"use strict";(()=>{{{body}}})();'
