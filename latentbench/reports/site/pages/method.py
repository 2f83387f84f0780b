"""A page per method: its idea, what it needs, its lines over all benchmarks, its claims."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from latentbench.reports.claims import POOLED, Case
from latentbench.reports.site.contents import Contents, slug
from latentbench.reports.site.meanings import MethodWords
from latentbench.reports.site.pages.claims import answers
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.tables import Line, Rest, Table, tables
from latentbench.reports.site.templating import render

INDEX = "methods.html"


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield a page per method that records name, and one of them all."""
    found = tables(contents)
    names = sorted({record.names["method"] for _, record in contents.found})
    words = {name: contents.meanings.method(name) for name in names}
    counts = {name: sum(len(_lines(table, name)) for table in found) for name in names}
    listed = [[name, asdict(words[name]), counts[name]] for name in names]
    yield Piece(INDEX, listed, lambda: {INDEX: _index(words, counts)})
    for name in names:
        lines = [(table, _lines(table, name)) for table in found if _lines(table, name)]
        rest = [(table, each) for table in found for each in table.rest if _is(each, name)]
        claims = _claims(contents.claims, name)
        key = [
            asdict(words[name]),
            [[table.name, table.title, [asdict(line) for line in of]] for table, of in lines],
            [[table.title, asdict(each)] for table, each in rest],
            [asdict(answer) for answer in answers(claims)],
        ]
        page = f"methods/{slug(name)}.html"
        yield Piece(
            page,
            key,
            lambda page=page, name=name, lines=lines, rest=rest, claims=claims: {
                page: _page(name, contents.meanings.method(name), lines, rest, claims)
            },
        )


def _lines(table: Table, method: str) -> list[Line]:
    return [line for line in table.lines if line.method == method]


def _is(rest: Rest, method: str) -> bool:
    return rest.option == method


def _claims(cases: Sequence[Case], method: str) -> list[Case]:
    """Return the pooled claims that a method takes part in."""
    sides = [(case, (case.claim.first, case.claim.second)) for case in cases]
    return [
        case
        for case, both in sides
        if case.group == POOLED and method in {words.split(" ")[0] for words in both}
    ]


def _index(words: dict[str, MethodWords], counts: dict[str, int]) -> bytes:
    return render("methods.html", root="", here="methods", methods=words, counts=counts)


def _page(
    name: str,
    words: MethodWords,
    lines: Sequence[tuple[Table, Sequence[Line]]],
    rest: Sequence[tuple[Table, Rest]],
    claims: Sequence[Case],
) -> bytes:
    return render(
        "method.html",
        root="../",
        here="methods",
        name=name,
        words=words,
        tables=lines,
        rest=rest,
        claims=answers(claims),
    )
