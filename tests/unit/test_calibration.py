"""Simulations behind docs/statistics.md: do intervals and tests hold what they promise?"""

from itertools import combinations

import numpy as np
import pytest

from calibration import __main__ as command
from calibration import differences, means, sets
from calibration.laws import BEYOND, HELD
from calibration.table import Table
from latentbench.intervals import Units
from latentbench.reports.comparison import Ranking, compare

LAWS = {law.name: law for law in (*HELD, *BEYOND)}


def shares(table, *begins):
    """Return the shares of the rows that begin with these cells, by row; None where none."""
    found = {}
    for row in table.rows[2:]:
        if all(begin in row for begin in begins) and not any("(beyond)" in cell for cell in row):
            cells = [c.split(" ")[0] for c in row if c.startswith((".", "1.00", "none"))]
            found[" | ".join(row[:2])] = [None if c == "none" else float(c) for c in cells]
    return found


NAMES = [name for name in LAWS if "1.5" not in name]


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_of_a_law_is_what_it_says(name: str):
    law = LAWS[name]
    values = law.draw(np.random.default_rng(0), (200_000,))
    assert values.mean() == pytest.approx(law.mean, abs=5 * values.std() / np.sqrt(len(values)))


@pytest.mark.parametrize("name", ["normal", "exponential", "log-normal, sd of the logarithm 1"])
def test_an_interval_of_sixteen_images_holds(name):
    law, rng = LAWS[name], np.random.default_rng(0)
    ends = [Units(x).interval() for x in law.draw(rng, (1000, 16))]
    assert 0.92 <= np.mean([low <= law.mean <= high for low, high in ends]) <= 0.98


def test_the_page_keeps_what_stands_around_the_tables():
    page = f"before\n{command.BEGIN}\nold\n{command.END}\nafter\n"
    assert command.written(page, "new").split() == [
        "before", *command.BEGIN.split(), "new", *command.END.split(), "after"
    ]  # fmt: skip


def test_the_docs_hold_a_table_of_each_simulation():
    text = command.PAGE.read_text(encoding="utf-8")
    inside = text.partition(command.BEGIN)[2].partition(command.END)[0]
    assert all(f"### {title}\n" in inside for title, _, _ in command.TABLES)


@pytest.mark.slow
class TestTables:
    """1000 samples give a share with a standard error below .008, and two digits are shown."""

    LOW, HIGH = 0.9, 0.99

    def check(self, table: Table, *begins):
        found = shares(table, *begins)
        assert found
        wrong = {
            row: cells
            for row, cells in found.items()
            if any(c is not None and not self.LOW <= c <= self.HIGH for c in cells)
        }
        assert not wrong

    def test_means(self):
        self.check(means.of_means(1000), "used")

    def test_rates(self):
        self.check(means.of_rates(1000))

    def test_rows_that_come_in_clusters(self):
        self.check(means.of_clusters(1000))

    def test_means_over_seeds(self):
        self.check(means.of_seeds(1000))

    def test_heavy_tails_have_no_interval_of_a_distance(self):
        table = sets.of_sets(20)
        for law in ("exponential", "Student's t, 3 degrees of freedom"):
            assert shares(table, "Frechet distance", law).popitem()[1] == [None] * 3

    def test_methods_of_one_law_are_told_apart_no_more_often_than_stated(self):
        table = differences.of_differences(1000)
        assert max(max(cells) for cells in shares(table, "used").values()) <= 0.1

    @pytest.mark.parametrize("step", [0.05, 0.0001])
    def test_rank_intervals_hold_all_true_ranks_together(self, step):
        """Six methods, 32 images; bootstrapping ranks holds them in .80 and .47 of 200 trials."""
        truth, rng = np.arange(6) * step, np.random.default_rng(0)

        def trial():
            values = truth + rng.normal(size=(32, 1)) + rng.normal(size=(32, 6)) / np.sqrt(2)
            gaps = {(i, j): values[:, i] - values[:, j] for i, j in combinations(range(6), 2)}
            pairs = {pair: compare(gap[None]) for pair, gap in gaps.items()}
            ranks = Ranking(values.mean(0).tolist(), pairs, False).ranks
            return all(low <= k + 1 <= high for k, (low, high) in ranks.items())

        assert np.mean([trial() for _ in range(100)]) > 0.9
