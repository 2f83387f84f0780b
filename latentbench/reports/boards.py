"""Boards: what a leaderboard shows, worked out from records and samples, in no format yet."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from latentbench.content import content_hash
from latentbench.intervals import FEWEST, Array, Units, jackknife_units, row_units
from latentbench.means import Mean, crossed_mean, jackknife_mean
from latentbench.records import SAMPLES, Record, ScoreEntry, Status, read_samples
from latentbench.reports.comparison import (
    Comparison,
    Numbers,
    Ranking,
    compare_all,
    compare_sets,
    kendall,
)

Found = tuple[Path, Record]
KEYS = ["id", "group", "output"]  # what makes a row of samples
ROW_KEYS = ["seed", "id", "group"]  # what its outputs share, over several seeds
ROUNDING = 1e-6  # of a figure's largest value on the board: smaller differences count as none
JUDGES = ("zoo1", "zoo2")  # the one that scores, and the one that is asked whether it agrees
AT_ONCE = 2**20  # differences of rows that are held in memory at a time
SHARE = 0.01  # of a figure's median size: the smallest difference that matters where none is stated
STRENGTH_DIGITS = 4  # to which two strengths of different edits are one
AGREE = 0.7  # Kendall's tau below which the judges disagree


@dataclass(frozen=True)
class Point:
    """A figure at one strength of an edit, or at one frame of a path.

    Args:
        place: native strength, or number of the frame from 1 on.
        value: mean over images and seeds.
        low: lower end of its 95% interval, or None where none would hold.
        high: upper end.
    """

    place: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """What is worked out of a row's samples.

    Args:
        scores: each figure over all seeds; none of a single seed, whose record has them.
        seed_shares: figure -> the share of its variance that another choice of seeds would change.
        coverage: figure -> the share of rows that count.
        missed: the groups in which some rows miss the matched effect.
    """

    scores: Mapping[str, ScoreEntry]
    seed_shares: Mapping[str, float]
    coverage: Mapping[str, float]
    missed: Sequence[str]


@dataclass(frozen=True)
class Findings:
    """All of a board that takes samples to work out: with its records, it gives the board again.

    Args:
        rows: id of each row's first record -> its summary.
        pairs: figure -> two numbers of rows on the board, and how the first differs from the
            second.
    """

    rows: Mapping[str, Summary]
    pairs: Mapping[str, Sequence[tuple[int, int, Comparison]]]


class Row:
    """One line of a board: cells that differ in nothing but their seed.

    Args:
        found: folder and record of each cell, by seed.
        summaries: what is known of the samples, by id of the first record; the tables are then
            read when they are asked for.
    """

    def __init__(
        self, found: Sequence[Found], summaries: Mapping[str, Summary] | None = None
    ) -> None:
        found = sorted(found, key=lambda pair: pair[1].seed)
        self.records = tuple(record for _, record in found)
        self.folders = tuple(folder for folder, _ in found)
        self.seeds = tuple(record.seed for record in self.records)
        self._summaries = summaries

    @cached_property
    def samples(self) -> tuple[pd.DataFrame | None, ...]:
        """The table of each seed, or None where it cannot be read."""
        return tuple(read_samples(folder) for folder in self.folders)

    @cached_property
    def summary(self) -> Summary:
        """What is worked out of the samples."""
        if self._summaries is not None:
            return self._summaries[self.first.id]
        names = dict.fromkeys(name for record in self.records for name in record.scores)
        several = [] if len(self.records) == 1 else [*filter(_is_whole, names)]
        scores = {name: self._over_seeds(name) for name in several}
        means = {name: self._mean_and_units(name) for name in several}
        shown = scores or self._of_first
        return Summary(
            scores,
            {name: float(found[0].seed_share) for name, found in means.items() if found},
            {name: self._coverage(entry) for name, entry in shown.items()},
            self._missed(shown.values()),
        )

    @property
    def first(self) -> Record:
        """The record of the first seed, for what all share."""
        return self.records[0]

    @property
    def samples_are_read(self) -> bool:
        """Whether all tables of samples that are there could be read."""
        pairs = zip(self.folders, self.samples, strict=True)
        return all(table is not None or not (f / SAMPLES).is_file() for f, table in pairs)

    @cached_property
    def scores(self) -> Mapping[str, ScoreEntry]:
        """Each figure over all seeds; figures of single groups are left out."""
        return self._of_first if len(self.records) == 1 else self.summary.scores

    @property
    def _of_first(self) -> dict[str, ScoreEntry]:
        return {name: entry for name, entry in self.first.scores.items() if _is_whole(name)}

    def raw(self, figure: str) -> dict[int, float | None]:
        """Return the figure of each seed."""
        entries = ((r.seed, r.scores.get(figure)) for r in self.records)
        return {seed: None if entry is None else entry.value for seed, entry in entries}

    @cache  # noqa: B019 a row lives as long as its board
    def _mean_and_units(self, figure: str) -> tuple[Mean, Units] | None:
        """Return the mean over seeds with its variance, or None below two seeds or images."""
        values = [value for value in self.raw(figure).values() if value is not None]
        if len(values) < max(2, len(self.records)):
            return None
        value, replicates = float(np.mean(values)), self.replicates(figure)
        if replicates is not None:
            mean = jackknife_mean(np.array(values), replicates)
            return mean, jackknife_units(value, replicates.mean(0))
        which = self._counted(figure)
        if not which:
            return None
        found = _known_units(*self._places_of(which), self._over(which)[figure].to_numpy())
        if found is None or found[0].shape[1] < FEWEST or len(found[0]) < len(values):
            return None
        table, common = found
        return replace(crossed_mean(table), value=value), Units(table.mean(0), common)

    def values(self, figure: str) -> pd.Series | None:
        """Return the values that the score is a mean of, by (seed, id, group, output)."""
        which = self._counted(figure)
        return pd.Series(self._over(which)[figure]) if which else None

    def _counted(self, figure: str) -> tuple[tuple[int, str | None], ...]:
        """Return the seeds that have samples of a figure: number, and column of what counts."""
        entries = ((k, record.scores.get(figure)) for k, record in enumerate(self.records))
        return tuple(
            (k, None if entry.every_row else entry.at)
            for k, entry in entries
            if entry is not None and (table := self.samples[k]) is not None and figure in table
        )

    @cache  # noqa: B019 a row lives as long as its board
    def _over(self, which: tuple[tuple[int, str | None], ...]) -> pd.DataFrame:
        """Return the means by (seed, id, group, output) of all figures, of seeds and columns."""
        parts = {self.seeds[k]: self._counting(k, column) for k, column in which}
        rows = pd.concat(list(parts.values()), keys=parts, names=["seed"])
        return pd.DataFrame(rows.groupby(["seed", *KEYS]).mean())

    @cache  # noqa: B019 a row lives as long as its board
    def _places_of(self, which: tuple[tuple[int, str | None], ...]) -> tuple[Numbers, Numbers]:
        return _places(self._over(which).index)

    def _counting(self, k: int, column: str | None) -> pd.DataFrame:
        """Return all figures of the samples that a column marks, with what tells samples apart.

        Args:
            k: number of the seed.
            column: of samples; None: all rows.
        """
        samples = self.samples[k]
        assert samples is not None
        counts = samples if column is None else samples[samples[column]]
        figures = [name for name in self.records[k].scores if name in samples]
        return pd.DataFrame(counts[[*KEYS, *figures]])

    def profile(self, figure: str) -> list[Point]:
        """Return the figure's mean over images at each strength, or at each frame of a path.

        Strengths that some group lacks, such as those chosen for each, are left out, and so are
        figures that do not change with the output.
        """
        if any(samples is None or figure not in samples for samples in self.samples):
            return []
        rows = self._by_place
        values, same = rows[figure].to_numpy(), rows["row"].to_numpy()
        firsts = values[np.unique(same, return_index=True)[1]][same]
        if not (np.abs(values - firsts) > 0).any():
            return []
        seed, image, place = (rows[name].to_numpy() for name in ("seed", "image", "place"))
        points = []
        for value in np.unique(place):
            here = place == value
            found = _known_units(seed[here], image[here], values[here])
            if found is not None:
                points.append(_point(float(value), *found))
        return points

    @cached_property
    def _by_place(self) -> pd.DataFrame:
        """All samples with numbers of seed, image and row, and their place.

        A place is a strength that all groups have, or a frame's number. A strength that was chosen
        and is one of the curve as well counts once, as the curve's, which comes first: what an
        output is asked for may differ where the strength was chosen.
        """
        tables = [samples for samples in self.samples if samples is not None]
        rows = pd.concat(tables, keys=range(len(tables)), names=["seed"]).reset_index("seed")
        strengths = rows["strength"].to_numpy().round(STRENGTH_DIGITS)
        is_path = bool(np.isnan(strengths).any())
        rows["place"] = rows["output"] + 1.0 if is_path else strengths
        rows["image"] = pd.factorize(rows["id"])[0]
        rows = pd.DataFrame(rows.drop_duplicates(["seed", "id", "group", "place"]))
        groups = rows.groupby("place")["group"].transform("nunique").to_numpy()
        rows = pd.DataFrame(rows[groups == len(set(rows["group"]))])
        rows["row"] = rows.groupby(ROW_KEYS).ngroup()
        return rows

    @property
    def groups(self) -> set[str]:
        """What rows are cases of, such as edits."""
        tables = [samples for samples in self.samples if samples is not None]
        return {str(name) for samples in tables for name in samples["group"].unique()}

    def replicates(self, figure: str) -> Array | None:
        """Return the jackknife's replicates ``[seeds, groups]``, or None where a seed has none."""
        entries = [record.scores.get(figure) for record in self.records]
        rows = [entry.replicates for entry in entries if entry is not None]
        complete = len(rows) == len(entries) and len({len(row) for row in rows}) == 1
        return np.array(rows) if complete and rows[0] else None

    def images(self, figure: str) -> frozenset[tuple[Any, ...]]:
        """Return what counts for a figure: (seed, id, group) of the rows that are not left out."""
        return self._keys(self.scores[figure].at) if figure in self.scores else frozenset()

    def coverage(self, figure: str) -> float:
        """Return the share of rows that count: below 1 where some miss the matched effect."""
        return self.summary.coverage.get(figure, 1.0)

    def _coverage(self, entry: ScoreEntry) -> float:
        asked = frozenset() if entry.every_row else self._keys(None)
        return len(self._keys(entry.at)) / len(asked) if asked else 1.0

    @property
    def missed(self) -> Sequence[str]:
        """The groups in which some rows miss the matched effect."""
        return self.summary.missed

    def _missed(self, entries: Iterable[ScoreEntry]) -> list[str]:
        columns = {entry.at for entry in entries if not entry.every_row}
        lost = [self._keys(None) - self._keys(column) for column in columns]
        return sorted({str(group) for keys in lost for _, _, group in keys})

    @cache  # noqa: B019 a row lives as long as its board
    def _keys(self, column: str | None) -> frozenset[tuple[Any, ...]]:
        """Return (seed, id, group) of the rows that count by a column of samples; None: of all."""
        found: set[tuple[Any, ...]] = set()
        for seed, samples in zip(self.seeds, self.samples, strict=True):
            if samples is not None:
                rows = samples if column is None else samples[samples[column]]
                columns = (np.asarray(rows[name], object) for name in ("id", "group"))
                found |= {(seed, *key) for key in {*zip(*columns, strict=True)}}
        return frozenset(found)

    def _over_seeds(self, figure: str) -> ScoreEntry:
        entries = [r.scores[figure] for r in self.records if figure in r.scores]
        raw = {seed: value for seed, value in self.raw(figure).items() if value is not None}
        if not raw:
            return entries[0]
        found, value = self._mean_and_units(figure), float(np.mean(list(raw.values())))
        note = "by seed: " + ", ".join(f"{seed}: {v:.4g}" for seed, v in raw.items())
        if found is None:
            return replace(entries[0], value=value, low=None, high=None, note=note)
        mean, units = found
        note += f"; {mean.seed_share:.0%} of the variance is the seeds'"
        if why_not := units.why_no_interval():
            note += f"; no interval: {why_not}"
            return replace(entries[0], value=value, low=None, high=None, note=note)
        low, high = (float(np.clip(end, *entries[0].range)) for end in mean.joined(units))
        return replace(entries[0], value=value, low=low, high=high, note=note)


@dataclass(frozen=True)
class Agreement:
    """Whether two judges order the rows of a board alike by one figure.

    Args:
        figure: as the first judge reads it.
        twin: as the second judge reads it.
        tau: Kendall's tau-b, or None where a judge reads the same everywhere.
        n: rows.
        told: pairs of rows that both judges tell apart.
        reversed: those of them that they order the other way round.
        order: methods from best to worst, by the second judge.
    """

    figure: str
    twin: str
    tau: float | None
    n: int
    told: int
    reversed: int
    order: tuple[str, ...]

    @property
    def agree(self) -> bool:
        """Whether tau is .7 or more."""
        return self.tau is not None and self.tau >= AGREE


class Board:
    """The table of one benchmark on one model and data set.

    Args:
        benchmark: its name, with overridden settings.
        model: the same.
        dataset: the same.
        found: folders and records.
        known: what a board of the same records and samples has found; it is not worked out again.
    """

    def __init__(
        self,
        benchmark: str,
        model: str,
        dataset: str,
        found: Sequence[Found],
        known: Findings | None = None,
    ) -> None:
        self.benchmark, self.model, self.dataset = benchmark, model, dataset
        self.rest = [record for _, record in found if record.status is not Status.OK]
        rows = [Row(same, known and known.rows) for same in by_all_but_seed(found)]
        self.main_score = rows[0].first.main_score if rows else ""
        self.rows = sorted(rows, key=self._place)
        made = [made_with(row) for row in self.rows]
        self.clashes = {
            (i, j): odd
            for i, j in combinations(range(len(rows)), 2)
            if (odd := clash(made[i], made[j]))
        }
        entries = {k: v for row in rows for k, v in row.scores.items()}
        main = {self.main_score: entries[self.main_score]} if self.main_score in entries else {}
        self.figures: Mapping[str, ScoreEntry] = main | entries
        self._is_known = known is not None
        pairs = {} if known is None else known.pairs
        self.rankings = {
            name: ranking for name in self.figures if (ranking := self._rank(name, pairs.get(name)))
        }
        self.agreements = [a for name in self.figures if (a := self._agreement(name))]

    @property
    def title(self) -> str:
        """Benchmark, model and data set in words."""
        return f"{self.benchmark} · {self.model}, {self.dataset}"

    @property
    def samples_are_read(self) -> bool:
        """Whether all tables of samples that are there could be read."""
        return self._is_known or all(row.samples_are_read for row in self.rows)

    @property
    def findings(self) -> Findings:
        """What took samples to work out."""
        pairs = {
            name: [(*pair, comparison) for pair, comparison in ranking.pairs.items()]
            for name, ranking in self.rankings.items()
        }
        return Findings({row.first.id: row.summary for row in self.rows}, pairs)

    @property
    def columns(self) -> list[str]:
        """Figures worth a column: those of the second judge follow those of the first."""
        twins = {twin_of(name) for name in self.figures}
        return [name for name in self.figures if name not in twins]

    @cached_property
    def names(self) -> list[str]:
        """The methods, from best to worst; where several rows share a label, with a cell's id."""
        labels = [row.first.label("method") for row in self.rows]
        return [
            label if labels.count(label) == 1 else f"{label} [{row.first.id}]"
            for label, row in zip(labels, self.rows, strict=True)
        ]

    @property
    def versions(self) -> dict[str, list[str]]:
        """What rows that are not compared were made with: class or weights -> which, and who."""
        found: dict[str, dict[str, list[str]]] = {}
        for name in sorted({name for odd in self.clashes.values() for name in odd}):
            for who, row in zip(self.names, self.rows, strict=True):
                if name in (made := made_with(row)):
                    found.setdefault(name, {}).setdefault(made[name], []).append(who)
        return {
            name: [f"{which}: {', '.join(who)}" for which, who in sorted(made.items())]
            for name, made in found.items()
        }

    @property
    def ranking(self) -> Ranking | None:
        """The ranking by the main score."""
        return self.rankings.get(self.main_score)

    def _place(self, row: Row) -> tuple[float, float]:
        """Return what rows are sorted by: complete ones first, then the main score."""
        coverage = row.coverage(self.main_score)
        entry = row.scores.get(self.main_score)
        if entry is None or entry.value is None:
            return (0.0, float("inf"))
        return (-coverage, -entry.value if entry.higher_is_better else entry.value)

    def _rank(
        self, figure: str, known: Sequence[tuple[int, int, Comparison]] | None
    ) -> Ranking | None:
        """Return the ranking of the rows that miss the matched effect on the fewest images."""
        higher_is_better = self.figures[figure].higher_is_better
        if higher_is_better is None:
            return None
        coverage = [row.coverage(figure) for row in self.rows]
        kept = {k for k, share in enumerate(coverage) if share == max(coverage)}
        values, witness = (
            [
                entry.value if k in kept and (entry := row.scores.get(name)) else None
                for k, row in enumerate(self.rows)
            ]
            for name in (figure, twin_of(figure))
        )
        if known is not None:
            pairs = {(i, j): comparison for i, j, comparison in known}
        else:
            pairs = paired(self.rows, figure, kept=kept) | paired_sets(self.rows, figure, kept)
        pairs = {pair: found for pair, found in pairs.items() if pair not in self.clashes}
        return Ranking(values, pairs, higher_is_better, self.smallest(figure), witness)

    def smallest(self, figure: str) -> float:
        """Return the smallest difference of a figure that matters.

        What the figure states; otherwise, for a figure without a finite range, 1% of the median
        size on the board.
        """
        entries = [row.scores[figure] for row in self.rows if figure in row.scores]
        if entries[0].smallest is not None:
            return entries[0].smallest
        sizes = [abs(entry.value) for entry in entries if entry.value is not None]
        return SHARE * float(np.median(sizes)) if sizes else 0.0

    def _agreement(self, figure: str) -> Agreement | None:
        first, second = (self.rankings.get(name) for name in (figure, twin_of(figure)))
        if first is None or second is None:
            return None
        both = [k for k in first.order if k in second.order]
        if len(both) < 2:
            return None
        read = [
            [value for k in both if (value := ranking.values[k]) is not None]
            for ranking in (first, second)
        ]
        tau = kendall(*read)
        alike, turned = (
            len(first.differing.intersection(pairs))
            for pairs in (second.differing, {pair[::-1] for pair in second.differing})
        )
        order = tuple(self.names[k] for k in second.order if k in both)
        return Agreement(figure, twin_of(figure), tau, len(both), alike + turned, turned, order)


def boards(found: Iterable[Found]) -> list[Board]:
    """Return one board per benchmark, model and data set, each with the settings of its own."""
    return [Board(*names, cells) for names, cells in grouped(found)]


def grouped(found: Iterable[Found]) -> list[tuple[tuple[str, str, str], list[Found]]]:
    """Return benchmark, model and data set of each board, and its cells."""
    groups: dict[tuple[str, str, str], list[Found]] = {}
    for folder, record in found:
        key = (record.label("benchmark"), record.label("model"), record.label("dataset"))
        groups.setdefault(key, []).append((folder, record))
    return [(key, groups[key]) for key in sorted(groups)]


def twin_of(figure: str) -> str:
    """Return the name of a figure as the second judge reads it, or an empty string.

    Example:
        >>> twin_of("leak_zoo1")
        'leak_zoo2'
    """
    scores, asked = JUDGES
    ending = f"_{scores}"
    return figure.removesuffix(ending) + f"_{asked}" if figure.endswith(ending) else ""


def paired(
    rows: Sequence[Row],
    figure: str,
    group: str | None = None,
    kept: Collection[int] | None = None,
) -> dict[tuple[int, int], Comparison]:
    """Return how rows differ by a figure that is a mean over rows of samples.

    Two methods are compared on the seeds, images, groups and outputs that both have, by the figure
    that is shown: with several rows per image the mean over rows, images being the units.

    Args:
        rows: the methods.
        figure: what they are compared by.
        group: rows of samples of this group alone; None: all.
        kept: numbers of the methods that are compared with each other; None: all.
    """
    series = {k: s for k, row in enumerate(rows) if (s := row.values(figure)) is not None}
    if group is not None:
        of_group = {k: s.index.get_level_values("group") == group for k, s in series.items()}
        series = {k: pd.Series(s[of_group[k]]) for k, s in series.items()}
    if len(series) < 2:
        return {}
    index, values = _side_by_side(list(series.values()))
    if not values.size:  # a group none of whose rows count
        return {}
    least = ROUNDING * float(np.fmax.reduce(np.abs(values), axis=None))
    places, names = _places(index), list(series)
    among = [k for k, name in enumerate(names) if kept is None or name in kept]
    if len(among) < 2:
        return {}
    pairs = np.array(list(combinations(among, 2)))
    found = {}
    for part in np.array_split(pairs, 1 + pairs.shape[0] * values.shape[1] // AT_ONCE):
        for (i, j), comparison in _paired(values, part, places, least):
            found[names[i], names[j]] = comparison
    return dict(sorted(found.items()))


def _side_by_side(series: Sequence[pd.Series]) -> tuple[pd.Index, Array]:
    """Return the rows that any of some series has, and their values: a row per series."""
    index = series[0].index
    if all(index.equals(other.index) for other in series[1:]):
        return index, np.stack([one.to_numpy() for one in series])
    wide = pd.concat(list(series), axis=1)
    return wide.index, np.ascontiguousarray(wide.to_numpy().T)


def _paired(
    values: Array, pairs: Numbers, places: tuple[Numbers, Numbers], least: float
) -> Iterator[tuple[Sequence[int], Comparison]]:
    """Yield the pairs with their comparisons, those together that have values for the same rows.

    Args:
        values: of each method and row; NaN where there is none.
        pairs: two methods each.
        places: number of each row's seed and of its image.
        least: gaps no larger than this are none.
    """
    gaps = values[pairs[:, 0]] - values[pairs[:, 1]]
    gaps[np.abs(gaps) <= least] = 0.0
    for known, members in _alike(np.isfinite(gaps)):
        units = _units(places[0][known], places[1][known], gaps[np.ix_(members, known)])
        if units is None:
            continue
        both = values[np.ix_(pairs[members].ravel(), known)].mean(-1).reshape(-1, 2)
        yield from zip(pairs[members].tolist(), compare_all(*units, both), strict=False)


def _alike(masks: npt.NDArray[np.bool_]) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield where a mask is true, and the numbers of all rows that have this mask."""
    if masks.all():
        yield np.arange(masks.shape[1]), np.arange(len(masks))
        return
    groups: dict[bytes, list[int]] = {}
    for k, mask in enumerate(masks):
        groups.setdefault(mask.tobytes(), []).append(k)
    for members in groups.values():
        yield np.flatnonzero(masks[members[0]]), np.array(members)


def paired_sets(
    rows: Sequence[Row], figure: str, kept: Collection[int] | None = None
) -> dict[tuple[int, int], Comparison]:
    """Return how rows differ by a figure of whole sets, where their sets are the same images.

    Args:
        rows: the methods.
        figure: what they are compared by.
        kept: numbers of the methods that are compared with each other; None: all.
    """
    same: dict[tuple[Any, ...], list[int]] = {}
    all_replicates: dict[int, Array] = {}
    for k, row in enumerate(rows):
        if kept is not None and k not in kept:
            continue
        replicates = row.replicates(figure)
        images = frozenset() if replicates is None else row.images(figure)
        if replicates is not None and images:
            same.setdefault((images, row.seeds, replicates.shape), []).append(k)
            all_replicates[k] = replicates
    found = {}
    for (images, _, _), members in same.items():
        pairs = list(combinations(members, 2))
        if not pairs:
            continue
        figures = {k: np.array(list(rows[k].raw(figure).values())) for k in members}
        gaps = np.stack([figures[i] - figures[j] for i, j in pairs])
        without = np.stack([all_replicates[i] - all_replicates[j] for i, j in pairs])
        n = np.full(len(pairs), len({key[1] for key in images}))
        found |= dict(zip(pairs, compare_sets(gaps, without, n), strict=True))
    return dict(sorted(found.items()))


def _is_whole(figure: str) -> bool:
    """Return whether a figure is of all groups together."""
    return "/" not in figure


def _point(place: float, table: Array, common: Numbers | None) -> Point:
    units = Units(table.mean(0), common)
    low, high = crossed_mean(table).joined(units) if units.have_interval else (None, None)
    return Point(place, float(table.mean()), low, high)


def _places(index: pd.Index) -> tuple[Numbers, Numbers]:
    """Return the number of each row's seed and of its image."""
    assert isinstance(index, pd.MultiIndex)
    seed, image = (pd.factorize(index.codes[index.names.index(name)])[0] for name in ("seed", "id"))
    return seed, image


def _known_units(
    seed: Numbers, image: Numbers, values: Array
) -> tuple[Array, Numbers | None] | None:
    """Return the units of the values that are finite; see `_units`."""
    known = np.isfinite(values)
    return _units(seed[known], image[known], values[known])


def _units(seed: Numbers, image: Numbers, values: Array) -> tuple[Array, Numbers | None] | None:
    """Return values ``[..., s, n]`` whose means are the means over rows of each seed, or None.

    Images that all seeds have count. The second is the number of images that share the most
    common value, or None with several seeds, where it is to be counted.

    Args:
        seed: number of each row's seed.
        image: number of each row's image.
        values: one per row ``[..., rows]``, all finite.
    """
    if not len(seed):
        return None
    shape = (int(seed.max()) + 1, int(image.max()) + 1)
    cell, size = seed * shape[1] + image, shape[0] * shape[1]
    counts = np.bincount(cell, minlength=size).astype(float).reshape(shape)
    many = values.reshape(-1, len(cell))
    place = cell + size * np.arange(len(many))[:, None]
    sums = np.bincount(place.ravel(), many.ravel(), size * len(many))
    sums = sums.astype(float).reshape(*values.shape[:-1], *shape)
    seeds = np.flatnonzero(counts.any(1))
    complete = np.flatnonzero((counts[seeds] > 0).all(0))
    if not len(complete):
        return None
    units = [
        row_units(np.ascontiguousarray(sums[..., s, complete]), counts[s, complete]) for s in seeds
    ]
    common = units[0].common if len(units) == 1 else None
    return np.stack([u.values for u in units], axis=-2), common


def made_with(row: Row) -> dict[str, str]:
    """Return versions and weights of all that a row was made with.

    But for the method's own: a method may be compared with an older version of itself.
    """
    first, own = row.first, row.first.config.get("method")
    mine = own.get("_target_") if isinstance(own, Mapping) else None
    versions = {name: f"version {n}" for name, n in first.versions.items() if name != mine}
    return versions | {name: f"sha256 {digest[:8]}" for name, digest in first.weights.items()}


def clash(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return what two rows share in name only, so that their figures are not of one kind.

    Args:
        one: what one was made with, as `made_with` gives it.
        other: the same of the other.

    Example:
        >>> clash({"PSNR": "version 1", "A": "version 1"}, {"PSNR": "version 2", "B": "version 1"})
        ['PSNR']
    """
    return sorted(name for name in one.keys() & other.keys() if one[name] != other[name])


def by_all_but_seed(found: Sequence[Found]) -> list[list[Found]]:
    """Return the finished cells in groups that differ in their seed only."""
    groups: dict[str, list[Found]] = {}
    for folder, record in found:
        if record.status is Status.OK:
            rest = {key: value for key, value in record.config.items() if key != "seed"}
            same = ([record.label(group) for group in record.names], rest)
            key = content_hash(*same, dict(record.versions), dict(record.weights))
            groups.setdefault(key, []).append((folder, record))
    return list(groups.values())
