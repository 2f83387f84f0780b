"""Invention: what a method is given, and where planted methods come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank
from planted_invention import Cast

from benchmarks.invention import Invention
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.records import Status
from latentbench.streams import Streams

DATA = FacesDataset(size=SIZE)


class Seen(Cast):
    """Keeps what it is given."""

    def invent(self, characters, ids, prompts):
        self.given = [*getattr(self, "given", []), (characters, ids, prompts)]
        return super().invent(characters, ids, prompts)


def test_a_character_has_one_name_and_no_two_pictures_share_a_noise():
    editor, streams = Seen(), Streams(0)
    editor.attach(Blank(), streams, Cache(None))
    bench = Bench(editor, Blank(), DATA, streams, Cache(None), torch.device("cpu"), 2)
    benchmark = Invention(n=2, prompts=("glasses+", "smile- hat+"), draws=2)
    one, two = (
        benchmark.run(Work(group, (0, 1), 2), bench, {}) for group in benchmark.groups(DATA)
    )
    characters, ids, prompts = ([x for call in editor.given for x in call[k]] for k in range(3))
    assert characters == ["test/0", "test/0", "test/1", "test/1"] * 2
    assert len(set(ids)) == 8
    assert set(prompts) == {"<subject> glasses", "<subject> frowning hat"}
    hat = faces.factor_index("hat")
    assert (one.factors[:, hat] == 0).all() and (two.wanted[..., hat] == 1).all()
    assert torch.equal(one.sources, two.sources)  # photos that lack what any prompt asks for


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        record = run(
            folder,
            "invention",
            f"planted_invention.{method}",
            ("invention_error",),
            ("benchmark.n=20", "benchmark.prompts=[glasses+,smile+ hat+]"),
        )
        assert record.main_score == "invention_error_zoo1"
        assert record.status is Status.OK, record.reason
        return {n.removesuffix("_zoo1"): score for n, score in record.scores.items()}

    return found


@pytest.mark.slow
def test_people_who_stay_themselves_and_differ_are_alone_in_front(errors):
    best = errors("Cast")
    assert best["invention_error"].value < 0.2 and best["invention_error"].low is not None
    for method, error in (
        ("Crowd", "character_error"),
        ("OneFace", "character_error"),
        ("Deaf", "prompt_error"),
    ):
        found = errors(method)
        assert found[error].value > best[error].value + 0.4, method
        assert found["invention_error"].value > best["invention_error"].value + 0.4, method


@pytest.mark.slow
def test_trap_what_alone_would_look_perfect_is_not(errors):
    frozen, one, kin, unsure = (errors(m) for m in ("Frozen", "OneFace", "Kin", "Unsure"))
    assert frozen["within_share"].value < 0.01 and frozen["invention_error"].value > 0.4
    assert one["within_share"].value < 0.3 and one["character_error"].value > 0.9
    two = errors("TwoFaces")
    assert two["between_share"].value > 1 and two["character_error"].value > 0.4
    assert 0.5 < kin["character_error"].value < 0.9  # a quarter of the variance
    assert kin["within_share"].value < 0.3 < unsure["within_share"].value
    assert unsure["character_error"].value > 0.5
