"""Links of Markdown pages, as the site needs them."""

import os
import posixpath
import re
from collections.abc import Mapping

from latentbench import weights

OUTSIDE = {  # page of the repository outside docs/ -> page of the site
    "CONTRIBUTING.md": "contributing.md",
    "conf/README.md": "configuration.md",
    "results/reference/claims.md": "claims.md",
    "results/claims_edits/claims.md": "claims_edits.md",
    "results/claims_directions/claims.md": "claims_directions.md",
    "results/claims_personalisation/claims.md": "claims_personalisation.md",
    "results/reference/leaderboard.md": "reference.md",
    "results/zoo/leaderboard.md": "zoo_leaderboard.md",
    **{f"latentbench/zoo/weights/{n}/card.json": f"cards/{n}.json" for n in weights.names()},
}
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")
INTERVAL = re.compile(r"(?<=\d) \[([^\],|]+), ([^\]|]+)\](?=[^\n]*\|$)", re.MULTILINE)
FIRST_CELL = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def in_site(markdown: str, here: str) -> str:
    """Return a page whose relative links lead to where their targets are in the site.

    Args:
        markdown: the page, with links as the repository has them.
        here: the page in the site.

    Example:
        >>> in_site("[a](../CONTRIBUTING.md#x)", "index.md")
        '[a](contributing.md#x)'
        >>> in_site("[data](docs/data.md)", "contributing.md")
        '[data](data.md)'
        >>> in_site("[zoo](../zoo.md) [web](https://a.b)", "tutorials/author.md")
        '[zoo](../zoo.md) [web](https://a.b)'
    """
    origin = {place: source for source, place in OUTSIDE.items()}.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link[1]))
        place = OUTSIDE.get(target) or target.removeprefix("docs/")
        return f"]({os.path.relpath(place, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return LINK.sub(moved, markdown)


def unbroken(markdown: str) -> str:
    """Return tables whose figures are not parted from their intervals at the end of a line."""
    return INTERVAL.sub("\u00a0[\\1,\u00a0\\2]", markdown)


def with_links(markdown: str, known: Mapping[str, str]) -> str:
    """Return tables whose first cells lead to the pages of what they name.

    Example:
        >>> with_links("| `sdedit` | noise |", {"sdedit": "methods/sdedit.md"})
        '| [`sdedit`](methods/sdedit.md) | noise |'
    """

    def linked(cell: re.Match[str]) -> str:
        name = cell[1]
        return f"| [`{name}`]({known[name]}) |" if name in known else cell[0]

    return FIRST_CELL.sub(linked, markdown)
