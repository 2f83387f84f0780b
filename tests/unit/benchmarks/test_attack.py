"""Attacks: what is asked of a method, and where planted ones come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank, Perfect

from benchmarks.attack import Attack
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.records import Status
from latentbench.streams import Streams
from methods.editing.diffattack import DiffAttack

DATA = FacesDataset(size=SIZE)


class Seen(Editor):
    """Keeps what it is asked for and returns the source."""

    def edit(self, batch, edit, strengths):
        self.asked = edit
        return batch.images[:, None].expand(-1, len(strengths), -1, -1, -1)


def test_what_is_asked_is_a_reading_on_the_other_side():
    editor, cpu = Seen(), torch.device("cpu")
    bench = Bench(editor, Blank(), DATA, Streams(0), Cache(None), cpu, 2)
    found = Attack(n=4).run(Work("glasses-", (0, 3), 2), bench, {})
    column = faces.factor_index("glasses")
    assert (editor.asked.attribute, editor.asked.sign) == ("glasses", -1)
    assert bool((found.factors[:, column] > 0.75).all())
    assert found.wanted[:, 0, column].tolist() == [0, 0]
    assert torch.equal(found.truths[:, 0], found.sources)


def test_only_methods_with_a_classifier_are_asked():
    def misfit(method):
        settings = {"classifier": "attr1", "structure": 1.0} if method is DiffAttack else {}
        return Parts(method, settings, PixelDiffusion, DATA, Attack()).misfit()

    assert misfit(DiffAttack) is None
    assert misfit(Perfect)


def test_attributes_are_checked_before_any_work():
    with pytest.raises(BadInput, match="unknown attribute 'glases'"):
        Attack(attributes=("glases+",)).check(DATA)


# ---------------------------------------------------------------- planted methods


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a planted attack to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        given = ("benchmark.n=6", "benchmark.attributes=[glasses+,hat+]")
        record = run(folder, "attack", f"planted_attacks.{method}", ("attack",), given)
        assert record.status is Status.OK, record.reason
        assert record.main_score == "attack_zoo1"
        return {name: score.value for name, score in record.scores.items()}

    return found


def test_an_attack_that_knows_its_judge_is_ahead_of_an_honest_edit(scores):
    best, honest = scores("Adversarial"), scores("Honest")
    assert best["fooled_zoo1"] > 0.9 and best["attack_zoo1"] > 0.5
    assert honest["attack_zoo1"] == honest["fooled_zoo1"] == honest["fooled_attr1"] == 0
    assert honest["visibility"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["Idle", "AlmostHonest", "AlmostHalf", "NoiseOfTheSameNorm", "NoiseAlone"]
)
def test_what_is_no_attack_scores_nothing(scores, name):
    assert scores(name)["attack_zoo1"] < 0.1
    assert scores("Adversarial")["attack_zoo1"] > 0.5


@pytest.mark.slow
def test_what_is_seen_and_what_transfers_is_told_apart(scores):
    idle, noise = scores("Idle"), scores("NoiseAlone")
    assert idle["visibility"] < 0.3 and idle["fooled_zoo1"] == 0
    assert noise["visibility"] > 1
    elsewhere = scores("AimedElsewhere")
    assert elsewhere["fooled_zoo2"] > 0.9
    assert elsewhere["attack_zoo1"] < scores("Adversarial")["attack_zoo1"]
