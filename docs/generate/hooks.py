"""MkDocs' hooks: they add the generated pages and those outside docs/, and adapt links.

mkdocs.yml names this file; MkDocs calls its functions by their names.
"""

from functools import cache
from pathlib import PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page as SitePage

from docs.generate import parts
from docs.generate.links import OUTSIDE, in_site, unbroken, with_links
from latentbench.paths import CHECKOUT

SECTIONS = {"method": "Methods", "benchmark": "Benchmarks", "metric": "Metrics", "model": "Models"}
TABLES = {"methods.md": "method", "metrics.md": "metric", "zoo.md": "model"}  # a row for each part


@cache
def generated() -> dict[str, list[parts.Page]]:
    """Return the pages of all parts, made once per build."""
    return parts.pages(parts.committed(), parts.answered())


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation, each group below its own heading."""
    for group, title in SECTIONS.items():
        entries = [{page.names[0]: page.path} for page in generated()[group]]
        section = next(part[title] for part in config.nav or [] if title in part)
        section.append({"All": sorted(entries, key=lambda entry: next(iter(entry)))})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages with their pictures, and the pages from outside docs/."""
    for source, place in OUTSIDE.items():
        text = (CHECKOUT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    for page in (page for group in generated().values() for page in group):
        files.append(File.generated(config, page.path, content=page.text))
        for name, data in page.pictures.items():
            place = str(PurePosixPath(page.path).with_name(name))
            files.append(File.generated(config, place, content=data))
    return files


def on_page_markdown(markdown: str, page: SitePage, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where pages of the repository are in the site, and rows to their parts."""
    here = page.file.src_uri
    if here in TABLES:
        known = {n: p.path for p in generated()[TABLES[here]] for n in p.names}
        markdown = with_links(markdown, known)
    return in_site(unbroken(markdown), here)
