"""Recombination: what a method is given, what is refused, and where planted methods come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE, Blank
from planted_recombination import Truth

from benchmarks.recombination import FAR, OPERATORS, Recombination
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.errors import BadInput
from latentbench.records import Status
from latentbench.streams import Streams

DATA = FacesDataset(size=SIZE)
METRICS = ("edit_error", "edit_error_image", "taken")


class Seen(Truth):
    """Keeps what it is given."""

    def combine(self, a, b, edit):
        self.given = a, b, edit
        return super().combine(a, b, edit)


def samples(operator, index):
    editor, cpu = Seen(), torch.device("cpu")
    bench = Bench(editor, Blank(), DATA, Streams(0), Cache(None), cpu, len(index))
    return Recombination(n=4).run(Work(operator, index, len(index)), bench, {}), editor.given


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_answer_is_the_first_face_with_what_is_taken_of_the_second(operator):
    found, (a, b, edit) = samples(operator, (0, 3))
    for given in (a, b):  # pixels alone
        assert given.factors is None and given.masks is None and given.prompts is None
    columns = [faces.factor_index(name) for name in OPERATORS[operator]]
    others = [k for k in range(len(faces.FACTORS)) if k not in columns]
    index = torch.tensor([int(name.split("/")[1]) for name in b.ids])
    second = faces.sample_factors("test", index)
    assert edit.factors == OPERATORS[operator]
    assert torch.equal(found.wanted[:, 0, columns], second[:, columns])
    assert torch.equal(found.wanted[:, 0, others], found.factors[:, others])
    assert torch.equal(found.truths, DATA.render(found.wanted[:, 0])[:, None])
    assert torch.equal(found.outputs, found.truths.clamp(-1, 1))
    assert torch.equal(found.sources, a.images)


@pytest.mark.parametrize("operator", OPERATORS)
def test_there_is_something_to_take_of_every_partner_whatever_the_batch(operator):
    benchmark, index = Recombination(n=40), list(range(40))
    partners = benchmark.partners(DATA, index, operator)
    assert partners[::-1] == benchmark.partners(DATA, index[::-1], operator)
    assert min(partners) >= 40 and len(set(partners)) > 20
    columns = [faces.factor_index(name) for name in OPERATORS[operator]]
    first, second = (
        faces.sample_factors("test", torch.tensor(k))[:, columns] for k in (index, partners)
    )
    assert (((first - second).abs() > FAR).sum(1) == 1).all()


def test_data_without_the_factors_or_too_small_are_refused():
    class Bald(FacesDataset):
        def __init__(self):
            super().__init__(size=SIZE)
            self.factor_names = tuple(name for name in self.factor_names if name != "hat")

    with pytest.raises(BadInput, match=r"'accessory' takes hat.*benchmark\.operators"):
        Recombination().check(Bald())
    Recombination(operators=("pose",)).check(Bald())

    class Few(FacesDataset):
        def size(self, split):
            return 70

    with pytest.raises(BadInput, match=r"n=4 needs 72 images.*'test', which has 70"):
        Recombination(n=4).check(Few(size=SIZE))
    Recombination(n=3).check(Few(size=SIZE))


def test_a_face_without_a_partner_is_refused():
    class Alike(FacesDataset):
        def describe(self, split, indices):
            return super().describe(split, [0] * len(indices))

    with pytest.raises(BadInput, match="no image differs from test/1 in one of yaw, light"):
        Recombination(n=2).partners(Alike(size=SIZE), [1], "pose")


# ---------------------------------------------------------------- planted methods


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, n=8):
        record = run(
            folder,
            "recombination",
            f"planted_recombination.{method}",
            METRICS,
            (f"benchmark.n={n}",),
        )
        assert record.main_score == "edit_error_zoo1"
        assert record.status is Status.OK, record.reason
        return {name.replace("_zoo1", ""): s.value for name, s in record.scores.items()}

    return found


@pytest.mark.slow
class TestOrder:
    @pytest.fixture
    def error(self, scores):
        return lambda name, figure="edit_error": scores(name)[figure]

    @pytest.mark.parametrize("figure", ["edit_error", "edit_error_image"])
    def test_the_answer_is_alone_in_front_and_nothing_done_is_one(self, error, figure):
        assert error("Truth", figure) == pytest.approx(0, abs=1e-6)
        assert error("First", figure) == pytest.approx(1, abs=0.02)
        for near in ("Blurred", "Half", "HalfMix"):
            assert 0.02 < error(near, figure) < 0.97, near
        assert error("Blurred", figure) < error("Half", figure) < error("HalfMix", figure)
        for wrong in (
            "OtherPerson", "PixelMean", "Second", "Swapped", "MeanFace", "Noise",
        ):  # fmt: skip
            assert error(wrong, figure) > 1.1, wrong

    def test_the_opposite_of_the_first_image_is_no_answer(self, error):
        for operator in OPERATORS:
            assert error("Opposite", f"edit_error/{operator}") > 0.85

    def test_taking_too_much_is_told(self, error):
        assert 0.3 < error("Greedy") and error("Greedy", "taken_error") < 0.1
        assert error("Greedy", "kept_error") > 0.3 > error("Half", "kept_error")

    def test_both_halves_tell_what_is_wrong(self, error):
        taken, kept = ({m: error(m, f) for m in ("First", "Second", "OtherPerson", "Swapped")}
                       for f in ("taken_error", "kept_error"))  # fmt: skip
        assert taken["First"] == pytest.approx(1, abs=0.02) and kept["First"] < 0.15
        assert taken["Second"] < 0.15 and kept["Second"] == pytest.approx(1, abs=0.15)
        assert taken["OtherPerson"] < 0.15 and kept["OtherPerson"] > 0.4
        assert taken["Swapped"] == pytest.approx(1, abs=0.1) and kept["Swapped"] > 0.8
