"""The page of claims: answers, effects against zero, and the cells that they rest on."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby

from latentbench.reports.claims import POOLED, SAYS, Case
from latentbench.reports.site.contents import Contents, slug
from latentbench.reports.site.pieces import Piece
from latentbench.reports.site.tables import Bar
from latentbench.reports.site.templating import render

PAGE = "claims.html"
KINDS = {  # beginning of an answer -> its look
    "shows": "good",
    "the opposite shows": "bad",
}


@dataclass(frozen=True)
class Answer:
    """A claim on one model and data set, or a group of it, as its template shows it.

    Args:
        name: for links.
        says: the claim, or the group.
        where: benchmark, model and data set.
        figure: what is compared.
        first: the method that the claim is about.
        second: the method that it is compared with.
        values: the figure of each; empty where they cannot be compared.
        toward: "higher" or "lower", as is claimed of the first.
        word: the answer in a word or two.
        detail: what else the answer says.
        kind: its look.
        gap: the difference with its interval.
        bar: the same, zero being in the middle.
        matters: half the width of the differences that do not matter, in percent.
        p: corrected.
        n: images.
        fits: seeds that both have.
        pooled: whether it is of all groups together.
        cells: ids of the records of the first and of the second.
    """

    name: str
    says: str
    where: str
    figure: str
    first: str
    second: str
    values: Sequence[str]
    toward: str
    word: str
    detail: str
    kind: str
    gap: str
    bar: Bar | None
    matters: float
    p: str
    n: str
    fits: str
    pooled: bool
    cells: Sequence[Sequence[str]]


def pieces(contents: Contents) -> Iterator[Piece]:
    """Yield the page of claims."""
    found = answers(contents.claims)
    yield Piece(PAGE, [asdict(answer) for answer in found], lambda: {PAGE: _page(found)})


def answers(cases: Sequence[Case]) -> list[Answer]:
    """Return claims as templates show them."""
    return [_answer(case) for case in cases]


def _answer(case: Case) -> Answer:
    says, where, figure, *both, gap, n, fits, p, words = case.line()
    names, values = (case.claim.first, case.claim.second), []
    if case.comparison is not None and case.p is not None:
        values = [text.removeprefix(f"{name}: ") for name, text in zip(names, both, strict=True)]
    word, _, detail = words.partition(": ")
    pooled = case.group == POOLED
    half = _half(case)
    return Answer(
        slug(f"{case.claim.says} {where} {figure} {case.claim.first} {case.group}"),
        says if pooled else case.group,
        where,
        figure,
        *names,
        values,
        case.claim.first_is,
        word,
        detail,
        KINDS.get(word, "unsure"),
        gap,
        _bar(case, half),
        round(min(50.0, 50 * case.smallest / half), 1) if half else 0.0,
        p,
        n,
        fits,
        pooled,
        [[record.id for record in row.records] for row in case.rows] if pooled else [],
    )


def _half(case: Case) -> float:
    """Return the largest difference that is drawn, or 0 where there is none."""
    found = case.comparison
    if found is None:
        return 0.0
    ends = (found.difference, found.low or 0.0, found.high or 0.0)
    return 1.08 * max(map(abs, ends))


def _bar(case: Case, half: float) -> Bar | None:
    found = case.comparison
    if found is None or not half:
        return None
    low = found.difference if found.low is None else found.low
    high = found.difference if found.high is None else found.high
    at, start, stop = (round(50 + 50 * v / half, 1) for v in (found.difference, low, high))
    return Bar(at, start, round(stop - start, 1))


def _page(found: Sequence[Answer]) -> bytes:
    """Return the page: each pooled claim with its groups, under the words of the claim."""
    parts: list[tuple[Answer, list[Answer]]] = []
    for answer in found:
        if answer.pooled:
            parts.append((answer, []))
        else:
            parts[-1][1].append(answer)
    claims = [(says, list(same)) for says, same in groupby(parts, key=lambda part: part[0].says)]
    counts: dict[str, int] = {}
    for answer, _ in parts:
        counts[answer.word] = counts.get(answer.word, 0) + 1
    return render("claims.html", root="", here="claims", claims=claims, counts=counts, how=SAYS)
