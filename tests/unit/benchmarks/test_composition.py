"""Composition: what is asked of a method, and where planted composers come out."""

from functools import cache
from typing import ClassVar

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank, blurred, number

from benchmarks.composition import Composition
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.cells.compatibility import Parts
from latentbench.data import faces
from latentbench.data.faces_dataset import CausalFaces, FacesDataset
from latentbench.editor import Editor
from latentbench.errors import BadInput
from latentbench.model import LatentModel
from latentbench.models.pixel_diffusion import PixelDiffusion
from latentbench.records import Status
from latentbench.streams import Streams
from latentbench.types import Capability
from methods.generation.composed import ComposedDiffusion
from methods.generation.energy_guidance import EnergyGuidance
from metrics.edits.edit_error import SMALLEST
from metrics.networks.readings import targets

DATA = FacesDataset(size=SIZE)
METRICS = ("edit_error", "all_asked")


class Composer(Editor[LatentModel]):
    """Renders the face of each id with everything as asked."""

    paper = "none"
    families = (LatentModel,)
    needs: ClassVar = {"compose": frozenset({Capability.PROMPTS})}

    def compose(self, ids, concepts, noise=None):
        known = faces.sample_factors("test", torch.tensor([number(i) for i in ids]))
        return self.shown(known, self.asked(concepts)).clamp(-1, 1)

    def mixture(self, ids, concepts, alternatives):
        chosen = [self.compose(ids, [*concepts, one]) for one in alternatives]
        return torch.stack([chosen[self.drawn(i) % len(chosen)][k] for k, i in enumerate(ids)])

    def drawn(self, name):
        """Return the number of an image's alternative."""
        return number(name)

    def asked(self, concepts):
        """Return factor and goal of each concept but the first, read from its word."""
        found = {}
        for concept in concepts[1:]:
            word = concept.prompts[0].split()[0]  # others are of what follows
            (factor,) = [f for f in faces.FACTORS if word in f.words]
            shown = float(word == factor.words[-1])
            found[factor.name] = shown if concept.weight > 0 else 1 - shown
        return found

    def shown(self, known, asked):
        for name, goal in asked.items():
            known[:, faces.factor_index(name)] = goal
        return faces.render(known, SIZE)


class OneOfThem(Composer):
    """Shows the first concept alone."""

    def asked(self, concepts):
        return super().asked(concepts[:2])


class Always(Composer):
    """Shows the first of the alternatives, to everybody."""

    def drawn(self, name):
        return 0


class Neither(Composer):
    """Shows none of the alternatives."""

    def mixture(self, ids, concepts, alternatives):
        return self.compose(ids, concepts)


class Averaging(Composer):
    """Shows a little of each alternative."""

    def mixture(self, ids, concepts, alternatives):
        return sum(self.compose(ids, [*concepts, one]) for one in alternatives) / len(alternatives)


class Crowded(Composer):
    """Shows a concept by itself, and of several the first."""

    def asked(self, concepts):
        return super().asked(concepts[:2])


class NotNegating(Composer):
    """Takes no notice of a weight's sign."""

    def asked(self, concepts):
        return super().asked([type(c)(c.prompts) for c in concepts])


class Ghosts(Composer):
    """Shows half of everything."""

    def shown(self, known, asked):
        before = faces.render(known, SIZE)
        return before.lerp(super().shown(known.clone(), asked), 0.5)


class OneFace(Composer):
    """Shows one face that has it all, to everybody."""

    def shown(self, known, asked):
        return super().shown(known[:1].expand_as(known).clone() * 0 + 0.3, asked)


class Blurry(Composer):
    """Shows everything, slightly blurred."""

    def shown(self, known, asked):
        return blurred(super().shown(known, asked), 0.4)


class Leaky(Composer):
    """Shows everything, on another skin and background."""

    def shown(self, known, asked):
        for name in ("skin", "background", "hair_colour"):
            known[:, faces.factor_index(name)] = (known[:, faces.factor_index(name)] + 0.4) % 1
        return super().shown(known, asked)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a composer and a composition to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, asked="glasses+ hat+"):
        given = ("benchmark.n=8", f"benchmark.compositions=['{asked}']")
        record = run(folder, "composition", f"test_composition.{method}", METRICS, given)
        assert record.status is Status.OK, record.reason
        assert record.main_score == "edit_error_zoo1"
        return record.scores["edit_error_zoo1"].value, record.scores["all_asked_zoo1"].value

    return found


def test_one_face_that_has_it_all_is_worse_than_nothing(scores):
    assert scores("Composer") == pytest.approx((0, 1), abs=1e-3)
    error, asked = scores("OneFace")
    assert error > 1 and asked == 1


@pytest.mark.slow
def test_perfect_stands_alone_in_front(scores):
    errors = {m: scores(m)[0] for m in ("Blurry", "OneOfThem", "Ghosts", "Leaky", "OneFace")}
    assert min(errors.values()) > SMALLEST
    assert errors["Blurry"] < errors["Leaky"] < errors["OneFace"]
    assert errors["OneOfThem"] < errors["Ghosts"]
    assert scores("OneOfThem")[1] == 0


@pytest.mark.slow
def test_a_negated_concept_counts_as_much_as_an_asked_one(scores):
    assert scores("Composer", "hat+ !beard") == pytest.approx((0, 1), abs=1e-3)
    error, asked = scores("NotNegating", "hat+ !beard")
    assert 0.5 < error < 0.9 and asked == 0


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Return a function from a composer and a yaml of a benchmark to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, benchmark, asked, metrics):
        given = ("benchmark.n=8", f"benchmark.compositions=['{asked}']")
        record = run(folder, benchmark, f"test_composition.{method}", metrics, given)
        assert record.status is Status.OK, record.reason
        return {name: score.value for name, score in record.scores.items()}

    return found


MIXTURE = ("mixture", "glasses+|hat+", (*METRICS, "rarest_alternative"))
TOGETHER = ("interference", "glasses+ hat+", ("all_asked", "interference"))


@pytest.mark.parametrize(
    ("method", "asked", "rarest"),
    [
        pytest.param("Composer", 1, 0.5, marks=pytest.mark.slow),
        ("Always", 1, 0),
        pytest.param("Neither", 0, 0, marks=pytest.mark.slow),
    ],
)
def test_a_mixture_has_all_of_its_parts(figures, method, asked, rarest):
    """Of every alternative an answer is rendered, and the nearest counts."""
    found = figures(method, *MIXTURE)
    assert found["all_asked_zoo1"] == asked
    assert found["rarest_alternative_zoo1"] == pytest.approx(rarest, abs=0.2)
    assert (found["edit_error_zoo1"] < 1e-3) == bool(asked)


@pytest.mark.slow
def test_a_little_of_each_alternative_is_far_from_all_answers(figures):
    """By the main score; a judge reads ghosts as shown, so `all_asked` does not tell."""
    assert figures("Averaging", *MIXTURE)["edit_error_zoo1"] > 0.5


def test_a_method_that_does_not_mix_is_refused():
    found = Parts(EnergyGuidance, {"scorer": "clip1"}, PixelDiffusion, DATA, Composition()).misfit()
    assert found is None
    asked = Composition(compositions=("glasses+|hat+",))
    found = Parts(EnergyGuidance, {"scorer": "clip1"}, PixelDiffusion, DATA, asked).misfit()
    assert found == "EnergyGuidance has no verb mixture, which Composition calls"


@pytest.mark.parametrize(
    ("method", "asked", "lost"),
    [("Crowded", 0, 0.5), pytest.param("Composer", 1, 0, marks=pytest.mark.slow)],
)
def test_interference_is_what_shows_alone_and_not_together(figures, method, asked, lost):
    found = figures(method, *TOGETHER)
    assert found["all_asked_zoo1"] == asked and found["interference_zoo1"] == lost


def test_a_mixture_has_no_interference():
    with pytest.raises(BadInput, match="only one alternative should show"):
        Composition(compositions=("hat+ beard+", "glasses+|hat+"), alone=True)


def test_concepts_are_the_rest_of_the_caption_and_a_word_each():
    protocol = Composition(n=2, compositions=("hat+ !beard",))
    index = [0, 1]
    rest, concepts = protocol._concepts(DATA, "hat+ !beard", index)
    hat, beard = concepts["hat"], concepts["beard"]
    assert (hat.prompts, hat.weight) == (("hat",) * 2, 1.0)
    assert (beard.prompts, beard.weight) == (("bearded",) * 2, -1.0)
    for caption, left in zip(DATA.describe("test", index).prompts, rest.prompts, strict=True):
        gone = [word for word in caption.split() if word not in left.split()]
        assert len(gone) == 2 and {*gone} <= {"hat", "bareheaded", "shaven", "bearded"}


def test_no_word_of_the_source_is_left_beside_that_of_an_asked_attribute():
    """A background between its ends has a word of its own, which is neither end's."""
    colours = {"crimson", "amber", "green", "blue", "violet"}
    known = DATA.describe("test", range(200)).factors[:, faces.factor_index("background")]
    index = [int(k) for k in ((known > 0.2) & (known < 0.25)).nonzero()[:4, 0]]  # all amber
    rest, concepts = Composition(n=2)._concepts(DATA, "background+ hat+", index)
    assert set(concepts["background"].prompts) == {"violet"}
    for caption, left in zip(DATA.describe("test", index).prompts, rest.prompts, strict=True):
        gone = {*caption.split()} - {*left.split()}
        assert len(gone) == 2 and "amber" in gone and not colours & {*left.split()}


def test_the_truth_is_the_counterfactual_of_the_data():
    """On causal data it moves what follows, which is in the words and is not asked for."""
    data, cpu, name = CausalFaces(size=SIZE), torch.device("cpu"), "smile+ hat+"
    bench = Bench(Composer(), Blank(), data, Streams(0), Cache(None), cpu, 2)
    found = Composition(n=2, compositions=(name,)).run(Work(name, (0, 1), 2), bench, {})
    index = [number(k) for k in found.ids]
    ones = torch.ones(2)
    wanted = data.with_factors("test", index, {"smile": ones, "hat": ones})
    assert torch.equal(found.wanted[:, 0], wanted)
    assert torch.equal(found.truths[:, 0], data.render(wanted))
    mouth = faces.factor_index("mouth_open")
    assert bool((wanted[:, mouth] > found.factors[:, mouth]).all())
    asked = targets(found, "x")[0, 0].nonzero()[:, 0].tolist()
    assert [faces.FACTOR_NAMES[k] for k in asked] == ["smile", "hat"]


def test_a_model_without_captions_is_asked_where_the_method_needs_none():
    def parts(method):
        return Parts(method, {"scorer": "clip1"}, PixelDiffusion, DATA, Composition())

    assert parts(EnergyGuidance).fits()
    assert "requires the space text" in str(parts(ComposedDiffusion).misfit())


def test_data_without_captions_are_refused():
    class Silent(FacesDataset):
        gives = FacesDataset.gives - {Capability.PROMPTS}

    with pytest.raises(BadInput, match="Silent has none"):
        Composition(n=1).check(Silent(size=SIZE))


def test_attributes_and_numbers_are_checked_before_any_work():
    with pytest.raises(BadInput, match="unknown attribute 'hatt'"):
        Composition(n=1, compositions=("hatt+ beard+",)).check(DATA)
    for twice in ("hat+ hat-", "hat+ !hat", "hat+ beard+ hat+", "hat+ beard+|hat+"):
        with pytest.raises(BadInput, match="names hat twice"):
            Composition(n=1, compositions=(twice,)).check(DATA)
    with pytest.raises(BadInput, match=r"asks for what 'hat\+ beard\+' asks for"):
        Composition(n=1, compositions=("hat+ beard+", "beard+ hat+")).check(DATA)
    with pytest.raises(BadInput, match=r"asks for what 'hat\+\|beard\+' asks for"):
        Composition(n=1, compositions=("hat+|beard+", "beard+|hat+")).check(DATA)

    class Few(FacesDataset):
        def size(self, split):
            return 30

    with pytest.raises(BadInput, match=r"asks for 20 images that lack all of 'hat\+ !beard'"):
        Composition(n=20, compositions=("hat+ !beard",)).check(Few(size=SIZE))
