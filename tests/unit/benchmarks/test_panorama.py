"""Panorama: what a method is given, and where planted methods come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_strips import Genuine, Wide

from benchmarks.panorama import Panorama
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data.strips_dataset import StripsDataset
from latentbench.errors import BadInput
from latentbench.records import Status
from latentbench.streams import Streams
from metrics.strips.strip_correlation import StripCorrelation
from metrics.strips.strip_error import StripError


class Seen(Genuine):
    """Keeps what it is given."""

    def panorama(self, ids, prompts, width):
        self.given = ids, prompts, width
        return super().panorama(ids, prompts, width)


def test_a_method_is_given_names_captions_and_the_width_of_the_strips():
    editor, streams, data = Seen(), Streams(0), StripsDataset(width=128)
    editor.attach(Wide(), streams, Cache(None))
    bench = Bench(editor, Wide(), data, streams, Cache(None), torch.device("cpu"), 2)
    samples = Panorama(n=2).run(Work("strips", (0, 1), 2), bench, {})
    known = data.batch("test", [0, 1])
    assert editor.given == (known.ids, known.prompts, 128)
    assert torch.equal(samples.truths[:, 0], known.images)
    assert samples.outputs.shape == (2, 1, 3, 64, 128)


def test_strips_without_room_for_two_windows_are_refused():
    protocol = Panorama(n=2)
    with pytest.raises(BadInput, match=r"159 pixels has room for 1; set dataset\.width to 160"):
        protocol.check(StripsDataset(width=159))
    protocol.check(StripsDataset(width=160))


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        record = run(
            folder,
            "panorama",
            f"planted_strips.{method}",
            ("strip_error", "strip_correlation"),
            ("benchmark.n=16",),  # of 8, the scatter of true strips is as large as a lesser fault
            model="planted_strips.Wide",
            dataset="strips",
        )
        assert record.status is Status.OK, record.reason
        assert record.main_score == "strip_error_zoo1"
        return {
            n.removesuffix("_zoo1").removeprefix("strip_"): s.value
            for n, s in record.scores.items()
        }

    return found


@pytest.mark.slow
def test_true_strips_are_in_front_and_each_fault_is_seen_by_its_part(scores):
    best = scores("Genuine")
    assert abs(best["error"]) < 0.5
    for method, part in (
        ("OneFace", "sameness"),
        ("Shuffled", "incoherence"),
        ("OtherCaption", "miscaption"),
        ("Noise", "unrealism"),
        ("Flat", "unrealism"),
        ("Seamed", "seam"),
    ):
        found = scores(method)
        assert found[part] > best[part] + 0.5, method
        assert found["error"] > best["error"] + 0.5, method


@pytest.mark.slow
def test_lesser_faults_cost_less(scores):
    best, turns, one = (scores(name) for name in ("Genuine", "TwoFaces", "OneFace"))
    assert best["sameness"] + 0.2 < turns["sameness"] < one["sameness"] - 0.2
    assert best["error"] < turns["error"] < one["error"]
    assert best["incoherence"] + 0.25 < scores("Drifting")["incoherence"]
    assert best["error"] + 0.5 < scores("Blurred")["error"] < scores("Noise")["error"]


@pytest.mark.slow
def test_what_windows_share_beyond_their_caption_reaches_to_the_other_end(scores):
    best, mixed = scores("Genuine"), scores("Shuffled")
    assert best["correlation_near"] > 0.7 and best["correlation_far"] > 0.7
    assert mixed["correlation_far"] < 0.6


@pytest.mark.slow
def test_what_copies_and_plain_pictures_have_more_of_leads_nothing(scores):
    best, figures = scores("Genuine"), StripCorrelation().figures | StripError().figures
    for method in ("OneFace", "Flat"):
        found = scores(method)
        assert min(found[f"correlation_{where}"] for where in ("near", "far")) > 0.99
        assert found["error"] > best["error"] + 0.5
    assert scores("OneFace")["global_std"] < best["global_std"]
    for name in ("correlation_near", "correlation_far", "global_std"):
        assert figures[f"strip_{name}_zoo1"].higher_is_better is None
