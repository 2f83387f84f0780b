"""Words for reports: what classes say of figures, methods and benchmarks, kept in the index."""

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from latentbench import index
from latentbench.errors import BadInput
from latentbench.option import Option
from latentbench.records import Record
from latentbench.reports.site.meanings import (
    BenchmarkWords,
    FigureWords,
    Meanings,
    MethodWords,
)

ARGUMENT = re.compile(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^Args:\n(.*?)(?=^\w|\Z)", re.MULTILINE | re.DOTALL)


def meanings(records: Iterable[Record], folder: Path | None = index.FOLDER) -> Meanings:
    """Return the words for what records name, as far as their parts are installed.

    Args:
        records: what is shown.
        folder: of the index.
    """
    found = list(records)
    figures: dict[str, FigureWords] = {}
    for name in _named(found, "metric"):
        words = _found("metric", name, folder)
        figures |= _figures(words) if words else {}
    methods = {n: w for n in _named(found, "method") if (w := _found("method", n, folder))}
    questions = {n: w for n in _named(found, "benchmark") if (w := _found("benchmark", n, folder))}
    return Meanings(
        figures,
        TypeAdapter(dict[str, MethodWords]).validate_python(methods),
        TypeAdapter(dict[str, BenchmarkWords]).validate_python(questions),
    )


def _named(records: Iterable[Record], group: str) -> list[str]:
    """Return the options of a group that records name."""
    if group != "metric":
        return sorted({record.names[group] for record in records})
    return sorted({name for record in records for name in record.config.get("metric") or {}})


def _figures(words: Mapping[str, Any]) -> dict[str, FigureWords]:
    return TypeAdapter(dict[str, FigureWords]).validate_python(words)


def _found(group: str, name: str, folder: Path | None) -> dict[str, Any]:
    """Return the words of one option, from the index or from its class; {} where it has none."""
    known, question = index.opened(folder), ["words", group, name]
    words = known.find(question)
    if words is None:
        from latentbench.cells import catalogue  # imports torch, where what is known needs none

        try:
            one = catalogue.option(group, name)
        except BadInput:
            return {}
        words = {} if catalogue.fault(group, one) else WORDS[group](one)
        if words and one.package in known.packages:
            known.keep(question, words)
    return words


def _of_metric(one: Option) -> dict[str, Any]:
    about = _paragraph(inspect.getdoc(one.cls)).partition(". ")[0].rstrip(".")
    return {
        name: {"says": figure.description, "metric": one.name, "about": about}
        for name, figure in one.build().figures.items()
    }


def _of_method(one: Option) -> dict[str, Any]:
    from latentbench.cells import catalogue

    text, verbs = inspect.getdoc(one.cls) or "", sorted(one.cls.verbs())
    asked = {verb: one.cls.required([verb], one.config) for verb in verbs}
    arguments = SECTION.search(text)
    return {
        "name": one.cls.__name__,
        "idea": catalogue.heading("method", one.name) or _paragraph(text),
        "paper": one.cls.paper_of(one.config),
        "scope": one.cls.scope,
        "requires": {verb: sorted(map(str, spaces)) for verb, (spaces, _) in asked.items()},
        "needs": {verb: sorted(map(str, needs)) for verb, (_, needs) in asked.items()},
        "options": {
            name: " ".join(says.split())
            for name, says in ARGUMENT.findall(arguments[1] if arguments else "")
        },
        "defaults": dict(one.config),
    }


def _of_benchmark(one: Option) -> dict[str, Any]:
    return {"question": one.cls.question, "verbs": sorted(one.build().verbs)}


def _paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join((text or "").partition("\n\n")[0].split())


WORDS = {"metric": _of_metric, "method": _of_method, "benchmark": _of_benchmark}
