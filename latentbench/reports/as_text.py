"""The leaderboard as text: its parts, and the pages that they make. It needs no numpy."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentbench import store


@dataclass(frozen=True)
class Part:
    """A piece of the leaderboard: what stands above all boards, or one board.

    Args:
        markdown: as Markdown, without the line break at its end.
        csv: lines of CSV.
        rows: the same as a JSON array.
    """

    markdown: str
    csv: str
    rows: str


def write(made: Sequence[Part], folder: Path) -> list[Path]:
    """Write leaderboard.md and leaderboard.csv, and return their paths."""
    texts = {
        "md": "\n\n".join(part.markdown for part in made) + "\n",
        "csv": "".join(part.csv for part in made),
    }
    paths = [folder / f"leaderboard.{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        store.write(path, text.encode())
    return paths


def in_markdown(text: str) -> str:
    """Return a text in one line, without tags that a page of Markdown would run."""
    return html.escape(" ".join(text.splitlines()), quote=False)
