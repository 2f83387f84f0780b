"""Charts of a board, as Vega-Lite specifications that a page draws in its own colours.

Every value and every interval is one of the board's: nothing is estimated here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentbench.reports.boards import Board, Row
from latentbench.reports.leaderboard import header

Link = Callable[[Row], str]
Spec = dict[str, Any]
Datum = dict[str, Any]

# Okabe and Ito's colours, as the style sheet gives them for either theme, with shapes for those who
# cannot tell them apart: 56 pairs before one comes back.
COLOURS = tuple(f"var(--c{k})" for k in range(1, 9))
SHAPES = {  # as Vega calls them -> outline for the legend, in a box of 16
    "circle": "M14 8A6 6 0 1 1 2 8A6 6 0 1 1 14 8Z",
    "square": "M3 3H13V13H3Z",
    "triangle-up": "M8 2L14 13H2Z",
    "diamond": "M8 1L14 8L8 15L2 8Z",
    "cross": "M6 2H10V6H14V10H10V14H6V10H2V6H6Z",
    "triangle-down": "M8 14L14 3H2Z",
    "triangle-right": "M14 8L3 2V14Z",
}
TRADES = (  # of two figures: title, the one across, the one upwards
    ("Effect against identity", "target_gain_zoo1", "id_zoo1"),
    ("Leak against gain", "target_gain_zoo1", "leak_zoo1"),
    ("Diversity against fidelity", "precision_zoo1", "recall_zoo1"),
)
PROFILED = 4  # figures whose curves are shown
HEIGHT = 300  # pixels
PLAIN = {"value": "var(--muted)"}  # colour of what belongs to no method
LOG = {"type": "log", "nice": False, "padding": 30}  # scale of evaluations
ROUND = {"format": ".3~s"}  # axis of evaluations: 20, 1.5k
FREE = {"zero": False, "nice": True}  # scale of figures, whose 0 may be far away


@dataclass(frozen=True)
class Look:
    """How a method is drawn, on every chart alike.

    Args:
        colour: of its marks.
        shape: of its points, for those who cannot tell the colours apart.
    """

    colour: str
    shape: str

    @property
    def outline(self) -> str:
        """The shape as an SVG path in a box of 16 by 16."""
        return SHAPES[self.shape]


@dataclass(frozen=True)
class Chart:
    """One chart and its words.

    Args:
        name: part of an address.
        title: heading.
        says: how to read it, in one or two sentences.
        spec: Vega-Lite without the colours of text, lines and background, and without a legend:
            the page has one for all of its charts.
    """

    name: str
    title: str
    says: str
    spec: Spec


def looks(boards: Iterable[Board]) -> dict[str, Look]:
    """Return one look per method with its settings, the same on all boards.

    Example:
        >>> looks([])
        {}
    """
    names = sorted({_name(row) for board in boards for row in board.rows})
    shapes = list(SHAPES)
    return {
        name: Look(COLOURS[k % len(COLOURS)], shapes[k % len(shapes)])
        for k, name in enumerate(names)
    }


def charts(
    board: Board, siblings: Sequence[Board], looks: Mapping[str, Look], link: Link
) -> list[Chart]:
    """Return the charts that a board has figures for.

    Args:
        board: benchmark, model and data set.
        siblings: boards of the same benchmark and data set on the same model under other settings,
            this one included: cost is compared over them.
        looks: how each method is drawn.
        link: address of a row's own page, as seen from the page with the charts.
    """
    pen = _Pen(board, looks, link)
    found = [
        *(pen.trade(title, across, up) for title, across, up in TRADES),
        pen.cost(siblings),
        *pen.profiles(),
        pen.judges(),
        pen.seeds(),
    ]
    return [chart for chart in found if chart is not None]


def front(points: Sequence[tuple[float, float]], better: tuple[bool, bool]) -> list[bool]:
    """Return which points no other one beats: none is at least as good in both and better in one.

    Args:
        points: two figures of each.
        better: whether higher is better, of each figure.

    Example:
        >>> front([(1, 2), (2, 1), (2, 0)], (True, True))
        [True, True, False]
    """
    signs = [1 if higher else -1 for higher in better]
    scaled = [tuple(s * value for s, value in zip(signs, p, strict=True)) for p in points]
    return [
        not any(o != p and all(x >= y for x, y in zip(o, p, strict=True)) for o in scaled)
        for p in scaled
    ]


class _Pen:
    """Draws the rows of one board."""

    def __init__(self, board: Board, looks: Mapping[str, Look], link: Link) -> None:
        self.board, self.link = board, link
        self.looks = {_name(row): looks[_name(row)] for row in board.rows}

    def trade(self, title: str, across: str, up: str) -> Chart | None:
        """Return two figures against each other, with those marked that none beats."""
        rows = [row for row in self.board.rows if _known(row, across) and _known(row, up)]
        if not rows:
            return None
        data = [self._who(row) | _ends(row, x=across, y=up) for row in rows]
        says = "Lines are 95% intervals; a point leads to its cell."
        better = [self.board.figures[name].higher_is_better for name in (across, up)]
        layers = self._crosses(across, up)
        if None not in better:
            points = [(datum["x"], datum["y"]) for datum in data]
            best = front(points, (bool(better[0]), bool(better[1])))
            data = [datum | {"best": mark} for datum, mark in zip(data, best, strict=True)]
            layers = [*_front(), *layers]
            says = f"Ringed: no other method is better in both (the Pareto front). {says}"
        return Chart(f"{across}-{up}", title, says, _spec(data, layers))

    def cost(self, siblings: Sequence[Board]) -> Chart | None:
        """Return the main score against what it cost, a line joining a method's settings."""
        main = self.board.main_score
        data = [
            self._who(row)
            | _ends(row, y=main)
            | {"x": _evaluations(row), "model": row.first.label("model")}
            for board in siblings
            for row in board.rows
            if _name(row) in self.looks and _known(row, main) and _evaluations(row)
        ]
        if not data:
            return None
        across = {**_figure("x", "denoiser evaluations per image"), "scale": LOG, "axis": ROUND}
        up = _figure("y", header(self.board, main))
        layers = [
            self._layer({"type": "line", "opacity": 0.5}, x=across, y=up, order={"field": "x"}),
            self._layer({"type": "rule"}, x=across, y=_end("y_low"), y2=_end("y_high")),
            self._points(across, up, ["model"]),
        ]
        says = (
            "All evaluations of the cell, fits, searches and both ways included, per image that "
            "was asked for. A line joins one method on the same model under other settings."
        )
        return Chart("cost", "Quality against cost", says, _spec(data, layers))

    def profiles(self) -> list[Chart]:
        """Return figures over strengths, or along a path, with bands."""
        found = []
        for figure in self._in_order_of_interest():
            data = [datum for row in self.board.rows for datum in self._profile(row, figure)]
            if data:
                found.append(self._curves(figure, data))
            if len(found) == PROFILED:
                break
        return found

    def _profile(self, row: Row, figure: str) -> list[Datum]:
        points = row.profile(figure)
        largest = 1.0 if _is_path(row) else max((abs(p.place) for p in points), default=1.0)
        return [
            self._who(row)
            | {"x": p.place / (largest or 1.0), "strength": f"{p.place:.3g}"}
            | {"y": p.value, "y_low": p.low, "y_high": p.high}
            for p in points
        ]

    def _curves(self, figure: str, data: list[Datum]) -> Chart:
        is_path = any(_is_path(row) for row in self.board.rows)
        title = "frame" if is_path else "share of the method's largest strength"
        across, up = _figure("x", title), _figure("y", header(self.board, figure))
        across |= {"axis": {"tickMinStep": 1}} if is_path else {}
        low, high = _end("y_low"), _end("y_high")
        layers = [
            self._layer({"type": "area", "opacity": 0.15}, x=across, y=low, y2=high),
            self._layer({"type": "line"}, x=across, y=up),
            self._points(across, up, [] if is_path else ["strength"]),
        ]
        where = "along the path" if is_path else "over strengths"
        says = "Means over all images with 95% bands."
        return Chart(f"profile-{figure}", f"{figure} {where}", says, _spec(data, layers))

    def judges(self) -> Chart | None:
        """Return a figure as the first judge reads it against the second judge's reading."""
        found = {a.figure: a for a in self.board.agreements}
        agreement = found.get(self.board.main_score, next(iter(found.values()), None))
        if agreement is None:
            return None
        across, up = agreement.figure, agreement.twin
        rows = [row for row in self.board.rows if _known(row, across) and _known(row, up)]
        data = [self._who(row) | _ends(row, x=across, y=up) for row in rows]
        values = [datum[axis] for datum in data for axis in ("x", "y")]
        same = {
            "data": {"values": [{"x": end, "y": end} for end in (min(values), max(values))]},
            "mark": {"type": "line", "strokeDash": [2, 4]},
            "encoding": {"x": _end("x"), "y": _end("y"), "color": PLAIN},
        }
        tau = "undefined" if agreement.tau is None else f"{agreement.tau:.2f}"
        says = (
            f"Kendall's tau of the order of {agreement.n} methods: {tau}. On the dotted line both "
            f"read the same. Pairs that both tell apart: {agreement.told}, of them the other way "
            f"round: {agreement.reversed}."
        )
        spec = _spec(data, [same, *self._crosses(across, up)])
        return Chart("judges", "Agreement of the two judges", says, spec)

    def seeds(self) -> Chart | None:
        """Return the main score seed by seed, where there are several."""
        main = self.board.main_score
        rows = [row for row in self.board.rows if len(row.seeds) > 1 and _known(row, main)]
        if not rows:
            return None
        data = [self._who(row) | _ends(row, x=main) for row in rows]
        each = [
            self._who(row) | {"x": value, "seed": str(seed)}
            for row in rows
            for seed, value in row.raw(main).items()
        ]
        across = _figure("x", header(self.board, main))
        down = {"field": "method", "type": "nominal", "sort": None, "title": None}
        dots = self._points(across, down, ["seed"])
        layers = [
            self._layer({"type": "rule"}, x=_end("x_low"), x2=_end("x_high"), y=down),
            self._layer({"type": "tick", "thickness": 3, "size": 16}, x=across, y=down),
            {"data": {"values": each}, **dots},
        ]
        says = "Points are seeds, the bar is their mean, the line its 95% interval."
        spec = _spec(data, layers) | {"height": 40 + 30 * len(rows)}
        return Chart("seeds", "Seed by seed", says, spec)

    def _in_order_of_interest(self) -> list[str]:
        """Return the main score, then the figures of the trades, then the rest."""
        traded = [figure for _, across, up in TRADES for figure in (across, up)]
        wanted = dict.fromkeys([self.board.main_score, *traded, *self.board.columns])
        return [figure for figure in wanted if figure in self.board.figures]

    def _who(self, row: Row) -> Datum:
        return {"method": _name(row), "href": self.link(row)}

    def _layer(self, mark: Spec, **channels: Any) -> Spec:
        colours = [look.colour for look in self.looks.values()]
        return {"mark": mark, "encoding": {**channels, "color": self._by_method(colours)}}

    def _points(self, across: Spec, up: Spec, more: Sequence[str] = ()) -> Spec:
        shapes = [look.shape for look in self.looks.values()]
        tip = [{"field": name, "type": "nominal"} for name in ("method", *more)]
        tip += [
            {**{k: axis[k] for k in ("field", "type", "title")}, "format": ".4g"}
            for axis in (across, up)
            if axis["type"] == "quantitative"
        ]
        return self._layer(
            {"type": "point", "filled": True, "size": 90, "opacity": 1, "cursor": "pointer"},
            x=across, y=up, shape=self._by_method(shapes), href={"field": "href"}, tooltip=tip,
        )  # fmt: skip

    def _by_method(self, values: Sequence[str]) -> Spec:
        scale = {"domain": list(self.looks), "range": list(values)}
        return {"field": "method", "type": "nominal", "scale": scale, "legend": None}

    def _crosses(self, across: str, up: str) -> list[Spec]:
        """Return points with an interval each way."""
        x, y = (_figure(a, header(self.board, f)) for a, f in (("x", across), ("y", up)))
        line = {"type": "rule", "opacity": 0.55}
        return [
            self._layer(line, x=_end("x_low"), x2=_end("x_high"), y=y),
            self._layer(line, x=x, y=_end("y_low"), y2=_end("y_high")),
            self._points(x, y),
        ]


def _front() -> list[Spec]:
    """Return a dashed line through those that none beats, and a ring around each."""
    places = {"x": _end("x"), "y": _end("y"), "color": PLAIN}
    marks = (
        {"type": "line", "strokeDash": [5, 4], "opacity": 0.7},
        {"type": "point", "shape": "circle", "size": 340, "strokeWidth": 1.5},
    )
    chosen = [{"filter": "datum.best"}]
    return [{"transform": chosen, "mark": mark, "encoding": places} for mark in marks]


def _spec(data: list[Datum], layers: list[Spec]) -> Spec:
    return {"data": {"values": data}, "width": "container", "height": HEIGHT, "layer": layers}


def _figure(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": FREE}


def _end(field: str) -> Spec:
    """Return a channel on an axis that another layer describes."""
    ends = {"field": field}
    return ends if field.endswith("_high") else ends | {"type": "quantitative", "scale": FREE}


def _name(row: Row) -> str:
    return row.first.label("method")


def _known(row: Row, figure: str) -> bool:
    return figure in row.scores and row.scores[figure].value is not None


def _ends(row: Row, **figures: str) -> Datum:
    """Return value and ends of the interval of figures, by axis: x, x_low, x_high."""
    found: Datum = {}
    for axis, figure in figures.items():
        entry = row.scores[figure]
        found |= {axis: entry.value, f"{axis}_low": entry.low, f"{axis}_high": entry.high}
    return found


def _evaluations(row: Row) -> float:
    """Return denoiser evaluations per image that was asked for, both ways."""
    asked = sum(record.asked for record in row.records)
    total = sum(r.total(way) for r in row.records for way in ("forward", "backward"))
    return total / asked if asked else 0.0


def _is_path(row: Row) -> bool:
    """Return whether the outputs of an image are frames, which have no strengths."""
    return any(s is not None and bool(s["strength"].isna().any()) for s in row.samples)
