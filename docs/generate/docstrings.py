"""How docstrings become pages: griffe knows the names of sections in the plural only."""

import re
from typing import Any

import griffe

PARAGRAPH = re.compile(r"\s+(Sources?|Deviations?):\s")
STAR = re.compile(r"(?<=\w)\*")
CODE = re.compile(r" *(>>>|\.\.\.)")
PLURAL = {"Example:": "Examples:", "Class attributes:": "Attributes:"}
HEAD = re.compile(rf"^({'|'.join(PLURAL)})$", re.MULTILINE)


class Sections(griffe.Extension):
    """Names each docstring's sections as griffe does."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Mend the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_page(obj.docstring.value)


def as_page(text: str) -> str:
    """Return a docstring as it reads on a page.

    Its sections have the names that griffe knows, an asterisk at a symbol (x*) starts no emphasis,
    and source and deviations are paragraphs.
    """
    text = HEAD.sub(lambda head: PLURAL[head[1]], text)
    lines = (x if CODE.match(x) else STAR.sub(r"\\*", x) for x in text.split("\n"))
    return PARAGRAPH.sub(r"\n\n**\1.** ", "\n".join(lines))
