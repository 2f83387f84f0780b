"""The pages of the parts, from their classes, yamls, model cards and the committed records.

The prose of a page is the docstring of its class, which mkdocstrings renders.
"""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

import yaml

from docs.generate.strips import strip
from latentbench import records, weights
from latentbench.cells.catalogue import heading, sound
from latentbench.option import Option
from latentbench.paths import CHECKOUT
from latentbench.reports import claims
from latentbench.reports.as_text import in_markdown
from latentbench.reports.boards import Board, Found, Row, boards
from latentbench.reports.claims import Case
from latentbench.reports.leaderboard import header, in_figures, places, who

OWN = ("latentbench", "methods", "metrics", "benchmarks")
RESULTS = ("reference", "zoo")  # the committed folders of results/ that are boards
CLAIMED = ("claims_edits", "claims_directions", "claims_personalisation")  # cells of papers' claims
ASKED = ("reference", *CLAIMED)  # folders with claims.yaml
WHERE = ("benchmark", "model", "method")  # of a row
STRIPS = 3  # pictures on a page, of as many benchmarks
SOURCES = {  # benchmark -> what its records keep of the images that an output was made of
    "consistency": "first reference",
    "personalisation": "first reference",
    "recombination": "first image (the second is not kept)",
}
MOST = 12  # rows of each board on a page of a benchmark or model that only claims were run on
ANSWER = ("claim", "answer", "where", "figure", "first", "second", "difference [95%]")
FIGURES = (
    "Brackets hold 95% intervals. A rank is the range of places that a row may have on its board; "
    "rows of a board that share a letter cannot be told apart. † did not reach the matched effect "
    "on some images."
)
COST = (
    "Cost is what a sample takes: one image, or one image under one edit with all its strengths. "
    "It counts neither what a method learns first nor how a benchmark chooses strengths; what an "
    "earlier cell had found counts as evaluations and not as seconds. In parentheses are the "
    "seconds of everything: fit, choice of strengths and scores as well."
)
DOCSTRING = """\
::: {target}
    options:
      show_root_heading: false
      show_root_toc_entry: false
      members: false
"""


@dataclass(frozen=True)
class Page:
    """One page of the site.

    Args:
        path: within the site.
        names: the options and figures that it is about; the first is its title.
        text: Markdown.
        pictures: file name, next to the page -> WebP.
    """

    path: str
    names: tuple[str, ...]
    text: str
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One row of a board, with the board.

    Args:
        board: the board.
        k: number of the row.
        claimed: whether it was made to answer a claim, with a method's settings varied.
    """

    board: Board
    k: int
    claimed: bool = False

    @property
    def row(self) -> Row:
        """The row."""
        return self.board.rows[self.k]


def committed() -> list[Line]:
    """Return all rows of the boards of the committed results, those of claims last."""
    return [
        Line(board, k, claimed)
        for claimed, names in ((False, RESULTS), (True, CLAIMED))
        for board in boards([pair for name in names for pair in _records(name)])
        for k in range(len(board.rows))
    ]


def answered() -> list[Case]:
    """Return the committed claims with their answers, each file corrected by itself."""
    return [
        case
        for name in ASKED
        for case in claims.answer(
            claims.read(CHECKOUT / "results" / name / claims.FILE), _records(name)
        )
        if case.group == claims.POOLED
    ]


@cache
def _records(name: str) -> list[Found]:
    return records.list_records(CHECKOUT / "results" / name)


def pages(lines: Sequence[Line], cases: Sequence[Case] = ()) -> dict[str, list[Page]]:
    """Return the pages by group; a class with several yamls has one, a model one each.

    Args:
        lines: rows of boards, whose figures and pictures are shown.
        cases: claims with their answers, which are shown with the methods that they are about.
    """
    return {
        "method": [_method(same, lines, cases) for same in _by_class("method")],
        "benchmark": [_benchmark(same, lines) for same in _by_class("benchmark")],
        "metric": [_metric(same, lines) for same in _by_class("metric")],
        "model": [_model(one, lines) for one in sound("model", OWN).values()],
    }


def _with(lines: Iterable[Line], group: str, names: Sequence[str]) -> list[Line]:
    """Return the rows of some options, in the options' order, those of claims last."""
    found = [x for x in lines if x.row.first.names[group] in names]
    return sorted(found, key=lambda x: (names.index(x.row.first.names[group]), x.claimed))


def _fewer(lines: Sequence[Line]) -> list[Line]:
    """Return the rows of boards; where there are none, the plainest ones of each claim's board."""
    return [x for x in lines if not x.claimed] or [
        x
        for _, same in groupby(lines, key=lambda x: x.board)
        for x in sorted(same, key=_settings_of)[:MOST]
    ]


def _settings_of(line: Line) -> int:
    """Return how many settings of its method a row has changed."""
    return len(line.row.first.label("method").split())


def _by_class(group: str) -> list[list[Option]]:
    """Return the options of each class; the one that the others vary, the plainest, is first."""
    found: dict[str, list[Option]] = {}
    for one in sound(group, OWN).values():
        found.setdefault(one.target, []).append(one)
    stems = {target: target.split(".")[-2] for target in found}
    return [
        sorted(same, key=lambda one: (one.name != stems[target], len(one.name), one.name))
        for target, same in found.items()
    ]


# ---------------------------------------------------------------- pages


def _method(same: Sequence[Option], lines: Sequence[Line], cases: Sequence[Case]) -> Page:
    first, names = same[0], [one.name for one in same]
    cls, mine = first.cls, _with(lines, "method", names)
    mine.sort(key=lambda x: (names.index(x.row.first.names["method"]), x.claimed, _settings_of(x)))
    verbs = [
        [f"`{verb}`", *map(_words, cls.required([verb], first.config))]
        for verb in sorted(cls.verbs())
    ]
    parts = [
        f"# {first.name}",
        f"*{cls.paper_of(first.config)}*",
        DOCSTRING.format(target=first.target),
        *_bases(cls),
        "## What it needs",
        f"Families of models that it works with: {_families(cls)}.",
        _pipes(["verb", "spaces of the model", "also needs"], verbs),
        *_settings("method", same),
        *_answers(cases, names),
        *_figures(mine),
    ]
    return _page("methods", names, parts, mine)


def _benchmark(same: Sequence[Option], lines: Sequence[Line]) -> Page:
    first, names = same[0], [one.name for one in same]
    cls, found = first.cls, _with(lines, "benchmark", names)
    mine = _fewer(found)
    facts = [
        ["question", cls.question],
        ["calls", _words(cls.verbs)],
        ["main score", f"`{cls.main_score}`"],
        ["version", str(cls.version)],
    ]
    parts = [
        f"# {first.name}",
        _pipes(["", ""], facts),
        DOCSTRING.format(target=first.target),
        *_settings("benchmark", same),
        *_figures(mine, len(found) - len(mine)),
    ]
    return _page("benchmarks", names, parts, mine)


def _metric(same: Sequence[Option], lines: Sequence[Line]) -> Page:
    first = same[0]
    figures = {name: f for one in same for name, f in one.build().figures.items()}
    columns = [
        [f"`{name}`", f.description, f.unit or "–", _range(f), _direction(f.higher_is_better)]
        for name, f in figures.items()
    ]
    parts = [
        f"# {first.name}",
        f"*{first.cls.source}*" if first.cls.source else "",
        _pipes(["figure", "what it is", "unit", "range", "better"], columns),
        f"Reads, besides the outputs: {_words(first.build().needs) or 'nothing'}.",
        DOCSTRING.format(target=first.target),
        *_settings("metric", same),
        *_columns([x for x in lines if not x.claimed], list(figures)),
    ]
    return _page("metrics", [*(one.name for one in same), *figures], parts)


def _model(one: Option, lines: Sequence[Line]) -> Page:
    found = _with(lines, "model", [one.name])
    mine = _fewer(found)
    parts = [
        f"# {one.name}",
        heading("model", one.name),
        f"Spaces: {_words(one.cls.spaces)}. It takes: {_words(one.cls.gives) or 'nothing'}.",
        *_card(one),
        DOCSTRING.format(target=one.target),
        *_settings("model", [one]),
        *_figures(mine, len(found) - len(mine)),
    ]
    return _page("models", [one.name], parts, mine)


def _page(
    folder: str, names: Sequence[str], parts: Iterable[str], lines: Sequence[Line] = ()
) -> Page:
    """Return a page; a picture of each benchmark's first row follows its title and first lines."""
    title, first, *rest = (part for part in parts if part)
    name, pictures, shown = names[0], {}, []
    firsts = {x.board.benchmark: x for x in reversed(lines)}
    for number, benchmark in enumerate(sorted(firsts)[:STRIPS], 1):
        line = firsts[benchmark]
        option = line.row.first.names["benchmark"]
        found = strip(line.row.folders[0], SOURCES.get(option, "source"))
        if found is None:
            continue
        file = f"{name}-{option}-{number}.webp"
        pictures[file] = found[0]
        caption = f"{line.row.first.title}. {found[1]}"
        shown.append(f"![{caption}]({file})\n\n*{caption}*")
    text = "\n\n".join([title, first, *shown, *rest]) + "\n"
    return Page(f"{folder}/{name}.md", tuple(names), text, pictures)


# ---------------------------------------------------------------- sections


def _settings(group: str, same: Sequence[Option]) -> Iterator[str]:
    """Yield the first option's yaml whole, and of the others what differs from it."""
    first = same[0]
    yield "## Settings"
    yield f"`{group}={first.name}`, with the defaults:"
    yield f"```yaml\n{_yaml(group, first)}\n```"
    if len(same) > 1:
        heads, rest = ["name", "differs by", "what it is", "paper"], same[1:]
        rows = [
            [
                f"`{group}={one.name}`",
                _difference(one, first),
                heading(group, one.name),
                _other_paper(group, one, first),
            ]
            for one in rest
        ]
        shown = [k for k in range(len(heads)) if k < 2 or any(row[k] for row in rows)]
        yield "Variants, each with its own name:"
        yield _pipes([heads[k] for k in shown], [[row[k] for k in shown] for row in rows])


def _difference(one: Option, first: Option) -> str:
    changed = {k: v for k, v in one.config.items() if first.config.get(k) != v}
    return ", ".join(f"`{k}: {json.dumps(v)}`" for k, v in changed.items()) or "its metrics"


def _other_paper(group: str, one: Option, first: Option) -> str:
    """Return the paper of a method's variant where it is not that of the page."""
    if group != "method":
        return ""
    own = one.cls.paper_of(one.config)
    return "" if own == first.cls.paper_of(first.config) else own


def _bases(cls: type) -> Iterator[str]:
    """Yield the docstrings of the classes that a method extends and that those shown refer to."""
    shown = cls.__doc__ or ""
    for base in cls.__mro__[1:]:
        if f"`{base.__name__}`" in shown:
            shown += base.__doc__ or ""
            yield f"## `{base.__name__}`"
            yield DOCSTRING.format(target=f"{base.__module__}.{base.__qualname__}")


def _answers(cases: Sequence[Case], names: Sequence[str]) -> Iterator[str]:
    """Yield what papers say of a method beside another, and what the committed cells answer."""
    about = [
        case
        for case in cases
        if {case.claim.first.split()[0], case.claim.second.split()[0]} & set(names)
    ]
    if not about:
        return
    rows = [dict(zip(claims.HEADS, map(in_markdown, case.line()), strict=True)) for case in about]
    yield "## Claims"
    yield (
        "What papers say, asked of the built-in models by paired tests. The answers are corrected "
        "for the number of claims of their file; its page has the intervals' units and the cells."
    )
    yield _pipes(ANSWER, [[row[head] for head in ANSWER] for row in rows])


def _figures(lines: Sequence[Line], left_out: int = 0) -> Iterator[str]:
    """Yield main scores beside what they cost, and all figures of each row folded below.

    Args:
        lines: the rows.
        left_out: how many further rows there are.
    """
    if not lines:
        yield "## Figures"
        yield "No committed board has it."
        return
    rows = [
        [
            *_labels(x.row),
            places(x.board, x.k),
            f"`{x.board.main_score}` {in_figures(x.row.scores.get(x.board.main_score))}",
            *_cost(x.row),
        ]
        for x in lines
    ]
    heads = [*WHERE, "rank", "main score [95% interval]", "evaluations", "seconds (in all)"]
    yield "## Figures and cost"
    yield f"{FIGURES} {COST}"
    yield _pipes(heads, rows)
    if left_out:
        yield f"{left_out} more rows, made for claims, are on the pages of their methods."
    for line in lines:
        title = ", ".join(_labels(line.row))
        figures = [[f"`{name}`", in_figures(e)] for name, e in line.row.scores.items()]
        table = _pipes(["figure", "value [95% interval]"], figures)
        yield f'??? note "All figures: {title}"\n\n' + _indented(table)


def _cost(row: Row) -> list[str]:
    """Return evaluations and seconds of a sample, with the seconds of everything beside them."""
    samples = sum(r.asked for r in row.records)
    whole = f"{sum(sum(r.seconds.values()) for r in row.records):.0f}"
    if not samples:  # an old record, which does not say how many there were
        return ["-", f"- ({whole})"]
    runs = [r.evaluations.get("run", {}) for r in row.records]
    forward, backward = (sum(x.get(way, 0) for x in runs) for way in ("forward", "backward"))
    seconds = sum(r.seconds.get("run", 0.0) for r in row.records)
    back = f" + {backward / samples:.4g} back" if backward else ""
    return [f"{forward / samples:.4g}{back}", f"{seconds / samples:.2g} ({whole})"]


def _columns(lines: Sequence[Line], figures: Sequence[str]) -> Iterator[str]:
    """Yield a table per board that has some of the figures."""
    yield "## On the committed boards"
    yield FIGURES
    any_board = False
    for board in dict.fromkeys(x.board for x in lines):
        shown = [name for name in figures if name in board.figures]
        if shown:
            any_board = True
            rows = [
                [who(row, "")[0], *(in_figures(row.scores.get(name)) for name in shown)]
                for row in board.rows
            ]
            yield f"**{board.title}**"
            yield _pipes(["method", *(header(board, name) for name in shown)], rows)
    if not any_board:
        yield "No committed board has it."


def _card(one: Option) -> Iterator[str]:
    """Yield how an embedded model was trained, and what was measured of it."""
    name = one.config.get("adapter") or one.config.get("path")
    if name not in weights.names():
        return
    card = weights.card(str(name))
    yield "## Training"
    yield f"Made by `{card['recipe']}`; {card['hardware']}; {card['date']}; {card['precision']}."
    stages = {stage: facts for stage, facts in card["training"].items() if isinstance(facts, dict)}
    names = list(dict.fromkeys(key for facts in stages.values() for key in facts))
    rows = [[stage, *(_value(facts.get(key)) for key in names)] for stage, facts in stages.items()]
    if rows:
        yield _pipes(["stage", *(key.replace("_", " ") for key in names)], rows)
    measured = yaml.safe_dump(card["measured"], sort_keys=False, default_flow_style=None, width=95)
    yield '??? note "Measured, as its card says"\n\n' + _indented(f"```yaml\n{measured}```")


# ---------------------------------------------------------------- words


def _yaml(group: str, one: Option) -> str:
    """Return an option's yaml as it stands, the comment at its head included."""
    return (CHECKOUT / "conf" / group / f"{one.name}.yaml").read_text(encoding="utf-8").strip()


def _families(cls: Any) -> str:
    """Return a method's families of models, each with what its docstring says first."""
    return "; ".join(f"`{one.__name__}` ({_first_line(one)})" for one in cls.families)


def _first_line(cls: type) -> str:
    """Return a docstring's first line as part of a sentence."""
    line = (inspect.getdoc(cls) or "").partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:]


def _labels(row: Row) -> list[str]:
    """Return benchmark, model and method, with their settings."""
    return [*(row.first.label(group) for group in WHERE[:2]), who(row, "")[0]]


def _range(figure: Any) -> str:
    low, high = ("" if end is None else f"{end:g}" for end in (figure.low, figure.high))
    return f"{low}..{high}" if low or high else "any"


def _direction(higher: bool | None) -> str:
    return {True: "higher", False: "lower", None: "neither"}[higher]


def _value(value: object) -> str:
    return (
        ""
        if value is None
        else "–".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )


def _words(values: Iterable[object]) -> str:
    return ", ".join(sorted(str(value) for value in values))


def _pipes(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(str(x).split()).replace('|', '&#124;') for x in line)} |"
        for line in lines
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())
