"""Attacks: what is asked of a method, and where planted ones come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank, Perfect, number

from benchmarks.attack import Attack
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.data import faces
from latentbench.data.faces_dataset import CausalFaces, FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.metric import Surroundings
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.records import Status
from latentbench.streams import Streams
from latentbench.types import Samples
from methods.editing.diffattack import DiffAttack
from metrics.edits.attack import AttackSuccess
from metrics.networks.readings import targets

DATA = FacesDataset(size=SIZE)
ONES = torch.ones(2)


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


def test_the_honest_edit_is_the_counterfactual_of_the_data():
    """On causal data it moves what follows, as the captions say; only what is named is asked."""
    data, cpu = CausalFaces(size=32), torch.device("cpu")
    protocol, bench = Attack(n=2), Bench(Seen(), Blank(), data, Streams(0), Cache(None), cpu, 2)
    batch, edit, wanted = protocol.ask(bench, "smile+", (0, 1))
    index = [number(name) for name in batch.ids]
    assert torch.equal(data.render(wanted), data.counterfactual("test", index, "smile", ONES))
    assert edit.target_prompts == tuple(faces.caption(wanted))
    found = protocol.run(Work("smile+", (0, 1), 2), bench, {})
    open_ = faces.factor_index("mouth_open")
    assert bool((found.wanted[:, 0, open_] != found.factors[:, open_]).all())
    asked = [faces.FACTOR_NAMES[k] for k in targets(found, "x")[0, 0].nonzero()[:, 0].tolist()]
    assert asked == ["smile"]


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


class Readings(torch.nn.Module):
    """Reads yes of all that is not grey, and says how far images are by their pixels."""

    def factors(self, images):
        return (images.mean((1, 2, 3)) != 0).float()[:, None].expand(-1, len(faces.FACTORS))

    def distance(self, a, b):
        return (a - b).flatten(1).square().mean(1)


class Plain(FacesDataset):
    """Draws the source grey, and honest edits as bright at one end as the image is told."""

    def render(self, factors):
        found = torch.zeros(len(factors), 3, SIZE, SIZE)
        found[..., :4, :] = factors[:, faces.factor_index("age")][:, None, None, None]
        return found


def planted(outputs, bright=(0.5, 0.5)):
    """Return the figures of outputs, of grey sources and of honest edits so bright."""
    data = Plain(size=SIZE)
    metric, count = AttackSuccess(), len(outputs)
    metric.prepare(Surroundings(data, torch.device("cpu"), Cache(None), lambda name, _: Readings()))
    factors = torch.zeros(count, len(faces.FACTORS))
    factors[:, faces.factor_index("age")] = torch.tensor(bright)
    wanted = factors.clone()
    wanted[:, faces.factor_index("hat")] = 1
    metric.update(
        Samples(tuple(map(str, range(count))), outputs[:, None], ("hat+",) * count,
                sources=torch.zeros(count, 3, SIZE, SIZE), factors=factors, wanted=wanted[:, None])
    )  # fmt: skip
    return {name: score.value for name, score in metric.compute().items()}


def test_trap_a_picture_of_something_else_fools_nobody():
    """It is read as asked and is further from the honest edit than from the source."""
    faint, garbage = torch.zeros(2, 3, SIZE, SIZE), torch.zeros(2, 3, SIZE, SIZE)
    faint[..., 8:, :], garbage[..., 8:, :] = -0.05, -1.0
    assert planted(faint)["fooled_zoo1"] == planted(faint)["fooled_zoo2"] == 1
    found = planted(garbage)
    assert found["visibility"] > 1
    assert found["fooled_zoo1"] == found["fooled_zoo2"] == found["attack_zoo1"] == 0


def test_visibility_is_a_ratio_of_sums_that_no_small_edit_rules():
    outputs = torch.zeros(2, 3, SIZE, SIZE)
    outputs[..., 8:, :] = -0.1
    found = planted(outputs, (0.001, 0.9))["visibility"]
    seen, whole = 0.1 * (3 / 4) ** 0.5, (0.001 + 0.9) / 2 * (1 / 8) ** 0.5
    assert found == pytest.approx(seen / whole, rel=1e-3)


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
