"""From samples to scores and to the table, with metrics whose values can be read off."""

import hashlib
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from latentbench.cells.scoring import Scorer, refuse_clashes
from latentbench.errors import BadInput, NotMeasurable
from latentbench.intervals import Kind
from latentbench.metric import Figure, Metric, SampleMetric
from latentbench.records import ScoreEntry
from latentbench.types import Samples, Score


class Mean(SampleMetric):
    """Mean of each output, and of each source: a value of the whole row."""

    figures: ClassVar[Any] = {
        "mean": Figure("of an output", "units", 0.0, 1.0, True),
        "source": Figure("of a source", low=-1.0, high=0.4),
    }
    needs = frozenset({"sources"})
    prepared = 0

    def prepare(self, surroundings):
        self.prepared += 1
        self.given = surroundings

    def values(self, samples):
        means = samples.outputs.mean((2, 3, 4))
        return {"mean": means, "source": samples.sources.mean((1, 2, 3))}


class Main(Mean):
    at = "main"
    figures: ClassVar[Any] = {"main": Mean.figures["mean"]}

    def values(self, samples):
        return {"main": samples.outputs.mean((2, 3, 4))}


class Bright(Mean):
    figures: ClassVar[Any] = {"bright": Figure("brighter than 0.5", kind=Kind.RATE)}

    def values(self, samples):
        return {"bright": (samples.outputs.mean((2, 3, 4)) > 0.5).double()}


class Prompted(Mean):
    needs = frozenset({"prompts", "noise", "sources"})


class Unready(Mean):
    def prepare(self, surroundings):
        raise NotMeasurable("has no references")


class Fussy(Mean):
    def add(self, samples):
        if "c" in samples.ids:
            raise NotMeasurable("does not like c")


class Whole(Metric):
    """A figure of the set, with an interval beyond what is possible."""

    figures: ClassVar[Any] = {"whole": Figure("of all", low=0.0, high=1.0, higher_is_better=False)}

    def add(self, samples):
        pass

    def compute(self):
        found = Score(0.9, 4, -0.7, 1.3, replicates=(0.8, 1.0))
        return {"whole": found, "whole/x": Score(None, 0)}


def samples(ids, group, brightness, **fields):
    """Return rows whose k-th output has the k-th brightness."""
    outputs = torch.tensor(brightness).reshape(len(ids), -1, 1, 1, 1)
    sources = torch.full((len(ids), 3, 2, 2), 0.25)
    return Samples(tuple(ids), outputs.expand(-1, -1, 3, 2, 2), (group,) * len(ids),
                   sources=sources, **fields)  # fmt: skip


FIRST = {"main": 1, "effect": 2, "strengths": torch.tensor([[1.0, 2.0, 3.0]] * 2)}


def scored(metrics, *chunks, switched_off=()):
    scorer = Scorer(metrics, "surroundings", dict(switched_off))
    for chunk in chunks:
        scorer.update(chunk)
    return scorer


@pytest.fixture
def edited():
    """Two edits of two images each, at three strengths; one row misses the matched effect."""
    matched = torch.tensor([True, False])
    return (
        samples("ab", "up", [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], **FIRST, matched=matched),
        samples("cd", "down", [[0.7, 0.8, 0.9], [0.0, 0.1, 0.2]], **FIRST),
    )


def test_two_metrics_of_one_figure_are_refused():
    with pytest.raises(BadInput, match="metrics one and three both give mean; leave one of them"):
        refuse_clashes({"one": Mean(), "two": Main(), "three": Mean()})
    refuse_clashes({"one": Mean(), "two": Main()})


def test_the_table_has_a_row_per_image_and_output(edited, tmp_path):
    scorer = scored({"mean": Mean(), "main": Main()}, *edited)
    (name, digest), *others = scorer.finish(tmp_path).items()
    found = (tmp_path / name).read_bytes()
    assert not others and digest == hashlib.sha256(found).hexdigest()
    brightness = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.0, 0.1, 0.2]
    expected = pd.DataFrame({
        "id": list("aaabbbcccddd"),
        "group": ["up"] * 6 + ["down"] * 6,
        "output": [0, 1, 2] * 4,
        "strength": np.array([1, 2, 3] * 4, np.float32),
        "headline": [False, True, False] * 4,
        "effect": [False, False, True, False, False, False] + [False, False, True] * 2,
        "mean": torch.tensor(brightness).double().numpy(),
        "source": 0.25,
        "main": torch.tensor(brightness).double().numpy(),
    })  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name), expected)


def test_figures_count_where_they_should(edited, tmp_path):
    scorer = scored({"mean": Mean(), "main": Main(), "bright": Bright()}, *edited)
    scorer.finish(tmp_path)
    found = {name: (s.value, s.n, s.at, s.every_row) for name, s in scorer.scores.items()}
    assert found == {  # of "up" one row reaches the matched effect
        "mean": (pytest.approx((0.3 + 0.9 + 0.2) / 3), 3, "effect", False),
        "mean/up": (pytest.approx(0.3), 1, "effect", False),
        "mean/down": (pytest.approx((0.9 + 0.2) / 2), 2, "effect", False),
        "source": (0.25, 4, "effect", True),
        "source/up": (0.25, 2, "effect", False),
        "source/down": (0.25, 2, "effect", False),
        "main": (pytest.approx((0.2 + 0.5 + 0.8 + 0.1) / 4), 4, "headline", False),
        "main/up": (pytest.approx(0.35), 2, "headline", False),
        "main/down": (pytest.approx(0.45), 2, "headline", False),
        "bright": (pytest.approx(1 / 3), 3, "effect", False),
        "bright/up": (0, 1, "effect", False),
        "bright/down": (0.5, 2, "effect", False),
    }
    assert scorer.scores["bright/down"].low > 0  # Wilson's, which is there for any number of rows
    assert scorer.scores["mean/down"].low is None


def test_without_a_chosen_output_all_count(tmp_path):
    rows = [samples(two, two, [[0.1, 0.2], [0.3, 0.4]]) for two in ("ab", "cd")]
    scorer = scored({"mean": Mean()}, *rows)
    scorer.finish(tmp_path)
    table = scorer.table()
    assert table["headline"].all() and table["strength"].isna().all() and "effect" not in table
    assert scorer.scores["mean/ab"].value == pytest.approx(0.25)
    assert {score.at for score in scorer.scores.values()} == {"headline"}


def test_a_cell_of_one_group_has_no_groups(tmp_path):
    scorer = scored({"mean": Mean()}, samples("ab", "all", [[0.1], [0.2]]))
    scorer.finish(tmp_path)
    assert scorer.scores.keys() == {"mean", "source"}


def test_a_score_says_what_its_figure_is_and_its_interval_stays_in_range(edited, tmp_path):
    scorer = scored({"mean": Mean(), "whole": Whole()}, *edited)
    scorer.finish(tmp_path)
    assert scorer.scores["whole"] == ScoreEntry(
        0.9, 4, 0.0, 1.0, "", "", False, (0.8, 1.0), False, "effect", Kind.SET, (0.0, 1.0), 0.01
    )
    assert scorer.scores["whole/x"].value is None
    mean = scorer.scores["mean"]
    assert (mean.unit, mean.higher_is_better, mean.kind) == ("units", True, Kind.MEAN)
    assert (mean.range, mean.smallest) == ((0.0, 1.0), 0.01)


def test_a_metric_without_its_fields_is_off_before_its_networks_are_loaded(edited):
    lacking, there = Prompted(), Mean()
    scorer = scored({"lacking": lacking, "there": there}, *edited, switched_off={"x": "why"})
    words = "needs noise, prompts, which this cell's samples lack"
    assert scorer.switched_off == {"x": "why", "lacking": words}
    assert (lacking.prepared, there.prepared, there.given) == (0, 1, "surroundings")
    assert scorer.metrics == {"there": there}


def test_a_metric_with_nothing_to_measure_is_off_and_the_others_stay(edited, tmp_path):
    scorer = scored({"unready": Unready(), "mean": Mean(), "fussy": Fussy()}, *edited)
    assert scorer.switched_off == {"unready": "has no references", "fussy": "does not like c"}
    scorer.finish(tmp_path)
    assert scorer.scores["mean"].n == 3


def test_no_samples_give_an_empty_table(tmp_path):
    scorer = Scorer({"whole": Whole()}, "surroundings", {})
    assert scorer.table().empty
    scorer.finish(tmp_path)
    assert scorer.scores["whole"].at == "headline"


def test_images_are_not_kept(edited):
    scorer = scored({}, *edited)
    assert sum(chunk.outputs.numel() for chunk in scorer._chunks) == 0
