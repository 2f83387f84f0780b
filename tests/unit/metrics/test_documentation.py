from pathlib import Path

from latentbench.cells.catalogue import options
from latentbench.data.faces import FACTOR_NAMES
from metrics.pairs.pairwise import SUFFIX

ROOT = Path(__file__).resolve().parents[3]


def documented():
    """Return the direction of each figure that has a row."""
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    pairs = [(row[0].strip("`"), row[3]) for row in rows if len(row) > 4]
    each = {True: FACTOR_NAMES, False: ("",)}
    return {
        name.replace("<factor>", factor): sign
        for name, sign in pairs
        for factor in each["<factor>" in name]
    }


def figures():
    built = [option.build() for option in options("metric").values() if option.name in FILES]
    return {name: figure for metric in built for name, figure in metric.figures.items()}


FILES = {path.stem for path in (ROOT / "conf" / "metric").glob("*.yaml")}


def test_every_figure_has_a_row_and_every_row_a_figure():
    names = {name.replace("_zoo2", "_zoo1") for name in figures()}
    assert names == documented().keys()
    assert not any(name.endswith(tuple(filter(None, SUFFIX.values()))) for name in names)


def test_direction_and_row_agree():
    signs = documented()
    expected = {True: "↑", False: "↓", None: "–"}
    for name, figure in figures().items():
        assert signs[name.replace("_zoo2", "_zoo1")] == expected[figure.higher_is_better], name
