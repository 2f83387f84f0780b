"""Pages from templates. What comes from records is text: everything is escaped."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from latentbench.reports.site.contents import slug


def render(template: str, root: str, here: str = "", **values: Any) -> bytes:
    """Return a page.

    Args:
        template: its file in `templates/`.
        root: the way from the page to the site's folder: "" or "../".
        here: the entry of the navigation that it belongs to.
        values: what the template shows.
    """
    text = _environment().get_template(template).render(root=root, here=here, **values)
    return text.encode("utf-8", "backslashreplace")


def breakable(text: str) -> Markup:
    """Return a name, escaped, that may be broken after its underscores.

    Example:
        >>> breakable("edit_friendly_ddpm")
        Markup('edit_<wbr>friendly_<wbr>ddpm')
    """
    return Markup("_<wbr>").join(map(escape, text.split("_")))


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("latentbench.reports.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(slug=slug, breakable=breakable)
    return made
