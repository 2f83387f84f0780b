"""Counterfactuals: what counts as an image's own, and where planted methods come out."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank, Perfect, number

from benchmarks.counterfactual import Counterfactual, answers, first_flip
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.data import faces
from latentbench.data.faces_dataset import CausalFaces, FacesDataset
from latentbench.metric import Surroundings
from latentbench.models.latent_diffusion import LatentDiffusion
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.records import Status
from latentbench.streams import Streams
from latentbench.zoo.judges import load_judge
from methods.editing.diffattack import DiffAttack
from methods.editing.sdedit import SDEdit
from metrics.edits.flip import Flip
from metrics.networks.readings import Sharpness

DATA = FacesDataset(size=SIZE)
CPU = torch.device("cpu")
N = 4  # images per attribute


def test_each_image_takes_its_own_first_flip():
    bench = Bench(Perfect(), Blank(), DATA, Streams(0), Cache(None), CPU, 3)
    work = Work("glasses-", (0, 1, 2), 3)
    found = Counterfactual(n=3, strengths=4).run(work, bench, {})
    batch, edit, wanted = Counterfactual(n=3).ask(bench, work.group, work.indices)
    curve = Perfect().edit(batch, edit, torch.linspace(0, 1, 5)[1:])
    yes = answers(curve, CPU, faces.factor_index("glasses")).tolist()
    for row, strength, image, told in zip(
        curve, found.strengths[:, 0].tolist(), found.outputs[:, 0], yes, strict=True
    ):
        first = told.index(False)  # the first strength without glasses
        assert strength == (first + 1) / 4 and torch.equal(image, row[first])
    assert torch.equal(found.truths[:, 0], DATA.render(wanted))


class Causal(Perfect):
    """Makes the counterfactual of causal faces; with `propagate=false` nothing follows from it."""

    def __init__(self, *, propagate: bool = True) -> None:
        self.propagate = propagate

    def factors(self, batch, edit, strength):
        alone = super().factors(batch, edit, strength)
        where = faces.factor_index(edit.attribute)
        values = {edit.attribute: alone[:, where]}
        index = [number(name) for name in batch.ids]
        known = CausalFaces(size=SIZE).with_factors("test", index, values)
        if self.propagate:
            return known
        own = faces.sample_factors("test", torch.tensor(index), 0.8)
        own[:, where] = alone[:, where]
        return own


@pytest.fixture
def flip(monkeypatch):
    """The metric on some data, told how sharp its judge is, which takes many images to read."""
    blur = torch.full((len(faces.FACTORS),), 0.05)
    monkeypatch.setattr(Flip, "sharpness", lambda self: Sharpness(blur, blur))

    def prepared(data):
        metric = Flip()
        metric.prepare(Surroundings(data, CPU, Cache(None), load_judge))
        return metric

    return prepared


@pytest.mark.parametrize("name", ["smile+", "hat+"])
def test_the_truth_is_the_counterfactual_of_the_data(name, flip):
    """On causal data what follows is part of it; what moves one factor alone is behind it."""
    data = CausalFaces(size=SIZE)
    error = {}
    for propagate in (True, False):
        bench = Bench(Causal(propagate=propagate), Blank(), data, Streams(0), Cache(None), CPU, 2)
        found = Counterfactual(n=2, strengths=1).run(Work(name, (0, 1), 2), bench, {})
        index = [number(k) for k in found.ids]
        answer = data.counterfactual("test", index, name[:-1], torch.ones(2))
        assert torch.equal(found.truths[:, 0], answer)
        assert found.prompts == data.edited_prompts("test", index, name[:-1], torch.ones(2))
        metric = flip(data)
        metric.update(found)
        error[propagate] = metric.compute()["flip_error_zoo1"].value
    assert error[True] == pytest.approx(0, abs=1e-3)
    assert error[False] > 0.1 if name == "smile+" else error[False] == error[True]


def test_trap_what_changes_nothing_is_not_sparse(flip):
    bench = Bench(Perfect(), Blank(), DATA, Streams(0), Cache(None), CPU, 2)
    asked = Counterfactual(n=2, strengths=1).run(Work("glasses+", (0, 1), 2), bench, {})
    metric = flip(DATA)

    def measured(outputs):
        metric.reset()
        metric.update(replace(asked, outputs=outputs))
        return metric.compute()

    true, idle = measured(asked.truths), measured(asked.sources[:, None])
    assert true["factors_changed_zoo1"].n == 2 and true["factors_changed_zoo1"].value < 2
    assert idle["factors_changed_zoo1"].value is None
    assert idle["flip_error_zoo1"].value == pytest.approx(1)


def test_what_never_flips_is_held_at_its_largest_strength():
    yes = torch.tensor([[True, True, False, True], [True, True, True, True]])
    assert first_flip(yes, -1).tolist() == [2, 3]
    assert first_flip(~yes, 1).tolist() == [2, 3]


def test_a_source_that_is_misread_has_no_flip_and_is_held_at_its_largest_strength(monkeypatch):
    misread = torch.tensor([[False, False, False], [False, True, False], [True, False, False]])
    assert first_flip(misread, -1).tolist() == [2, 2, 1]
    monkeypatch.setattr(
        "benchmarks.counterfactual.answers",
        lambda images, device, column: torch.zeros(images.shape[:2], dtype=torch.bool),
    )
    bench = Bench(Perfect(), Blank(), DATA, Streams(0), Cache(None), CPU, 1)
    found = Counterfactual(n=1, strengths=4).run(Work("glasses-", (0,), 1), bench, {})
    assert found.strengths.tolist() == [[1.0]] and torch.equal(found.outputs, found.truths)


def test_editors_with_and_without_a_classifier_are_asked():
    attack = {"classifier": "attr1", "structure": 1.0}
    for method, settings, model in (
        (DiffAttack, attack, PixelDiffusion), (SDEdit, {}, LatentDiffusion),
    ):  # fmt: skip
        assert Parts(method, settings, model, DATA, Counterfactual()).misfit() is None


# ---------------------------------------------------------------- planted methods


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        given = (
            f"benchmark.n={N}", "benchmark.attributes=[glasses+,smile+]", "benchmark.strengths=4",
        )  # fmt: skip
        record = run(folder, "counterfactual", method, ("flip",), given)
        assert record.status is Status.OK, record.reason
        assert record.main_score == "flip_error_zoo1"
        return {name: score.value for name, score in record.scores.items()}

    return found


@pytest.mark.slow
def test_the_true_counterfactual_is_perfect_and_an_attack_is_worth_nothing(scores):
    true, attack = scores("planted_editors.Perfect"), scores("planted_counterfactuals.Attack")
    assert true["flip_error_zoo1"] == pytest.approx(0, abs=1e-3)
    assert true["flip_image_zoo1"] == pytest.approx(0, abs=1e-3)
    assert true["flipped_attr1"] == attack["flipped_attr1"] == 1
    assert attack["flip_error_zoo1"] >= 1 - 1e-6 and attack["flip_image_zoo1"] >= 1 - 1e-6
    assert attack["flipped_zoo1"] < 0.2


@pytest.mark.slow
def test_an_attack_on_a_faint_edit_gains_little_and_is_told(scores):
    found = scores("planted_counterfactuals.FadedAttack")
    assert found["flipped_attr1"] == 1 and found["flipped_zoo1"] < 0.5
    assert found["flip_error_zoo1"] > 0.8


@pytest.mark.slow
def test_a_fade_to_half_is_well_behind(scores):
    assert scores("planted_editors.HalfMix")["flip_error_zoo1"] > 0.6


@pytest.mark.slow
def test_doing_nothing_is_one_and_going_the_whole_way_is_no_fault(scores):
    idle, whole = scores("planted_editors.Tiny"), scores("planted_counterfactuals.Whole")
    assert idle["flip_error_zoo1"] == pytest.approx(1, abs=0.01)
    assert idle["flipped_attr1"] == idle["flipped_zoo1"] == 0
    assert idle["factors_changed_zoo1"] is None  # what changes nothing is not sparse
    assert whole["flip_error_zoo1"] == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "planted_editors.GlobalBlur", "planted_editors.OtherFace", "planted_editors.OneFace",
        "planted_editors.Neighbour", "planted_editors.WrongAttribute",
        "planted_counterfactuals.Noise",
    ],
)  # fmt: skip
def test_what_is_no_counterfactual_is_no_better_than_nothing(scores, method):
    assert scores(method)["flip_error_zoo1"] >= 1 - 1e-6


@pytest.mark.slow
def test_the_more_factors_change_the_worse(scores):
    found = [scores(f"planted_editors.Leaky k={k}") for k in (1, 3)]
    true = scores("planted_editors.Perfect")
    errors = [one["flip_error_zoo1"] for one in (true, *found)]
    changed = [one["factors_changed_zoo1"] for one in (true, *found)]
    assert errors == sorted(errors) and changed == sorted(changed)
    assert changed[1] - changed[0] > 0.5 and changed[2] - changed[1] > 1
