"""What the pages show: records, boards, claims and words, read once for all pages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from latentbench.reports import claims, kept
from latentbench.reports.boards import Board, Found
from latentbench.reports.site.meanings import Meanings

PLAIN = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True)
class Contents:
    """All that the site is a function of.

    Args:
        found: folder and record of each cell.
        boards: the boards of these records.
        meanings: what parts say of themselves.
        claims_file: claims about these records; there need not be one.
    """

    found: Sequence[Found]
    boards: Sequence[Board]
    meanings: Meanings = field(default_factory=Meanings)
    claims_file: Path | None = None

    @classmethod
    def of(cls, found: Sequence[Found], meanings: Meanings, results: Path) -> "Contents":
        """Return the contents of a folder of results."""
        return cls(found, kept.boards(results, found), meanings, results / claims.FILE)

    @cached_property
    def claims(self) -> Sequence[claims.Case]:
        """The claims with their answers; none where there is no file of them."""
        if self.claims_file is None or not self.claims_file.is_file():
            return ()
        return claims.answer(claims.read(self.claims_file), self.found)

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Cell -> hash of its record, which seals the files next to it."""
        return {record.id: record.digest for _, record in self.found}


def slug(text: str) -> str:
    """Return a name that any file system and any link can hold, another one for another text.

    Example:
        >>> slug("hspace"), slug("faces steps=20")
        ('hspace', 'faces-steps-20-048ba8')
    """
    if PLAIN.fullmatch(text) and ".." not in text and len(text) <= 60:
        return text
    mark = sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:6]
    words = re.sub(r"[^a-z0-9]+", "-", text.lower())[:60].strip("-")
    return f"{words}-{mark}".lstrip("-")


def board_slug(board: Board) -> str:
    """Return the name of a board's page."""
    return slug(" ".join((board.benchmark, board.model, board.dataset)))
