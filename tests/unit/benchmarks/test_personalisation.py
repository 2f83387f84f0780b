"""Personalisation: what a method is given, what is refused, and where planted methods come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE
from planted_personalisation import Drawer, Portraits

from benchmarks.personalisation import Personalisation
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.errors import BadInput
from latentbench.records import Status
from latentbench.streams import Streams
from latentbench.types import Capability

DATA = FacesDataset(size=SIZE)
SETTINGS = {"n": 2, "references": 3, "prompts": ("glasses+", "smile- hat+"), "draws": 2}
ASKED = {"glasses": 1.0, "smile": 0.0, "hat": 1.0}
METRICS = ("personalisation_error", "all_asked", "forgetting")


class Seen(Portraits):
    """Keeps what it is given."""

    def personalise(self, references, ids, prompts):
        self.given = [*getattr(self, "given", []), (references, ids, prompts)]
        return super().personalise(references, ids, prompts)


def samples(group, index=(0, 1)):
    editor, streams, model = Seen(), Streams(0), Drawer()
    editor.attach(model, streams, Cache(None))
    bench = Bench(editor, model, DATA, streams, Cache(None), torch.device("cpu"), len(index))
    work = Work(group, tuple(index), len(index))
    return Personalisation(**SETTINGS).run(work, bench, {}), editor.given


def column(name):
    return faces.factor_index(name)


def test_references_are_the_subject_without_all_that_any_prompt_asks_for():
    found, given = samples("glasses+")
    for name, goal in ASKED.items():
        assert (found.factors[:, column(name)] == 1 - goal).all()
    who = [column(name) for name in faces.IDENTITY]
    people = DATA.describe("test", [0, 1]).factors
    assert torch.equal(found.factors[:, who], people[:, who])
    references = given[1][0]
    assert references.ids == tuple(f"test/0/reference {k}" for k in range(3))
    assert references.prompts == ("<subject> smiling bareeyed bareheaded",) * 3
    assert references.factors is None
    assert torch.equal(references.images[0], found.sources[0])
    assert (references.images[0] - references.images[1]).abs().max() > 0.1
    again = samples("smile- hat+")[1][1][0]
    assert torch.equal(again.images, references.images)  # learned once for all prompts


def test_a_prompt_names_the_subject_and_what_is_asked_in_the_captions_order():
    found, given = samples("smile- hat+")
    assert given[1][1:] == (("test/0/0", "test/0/1"), ("<subject> frowning hat",) * 2)
    change = (found.wanted[:, 0] - found.factors).abs() > 0
    assert change.sum(1).tolist() == [2, 2]
    for name in ("smile", "hat"):
        assert (found.wanted[..., column(name)] == ASKED[name]).all()


def test_the_truth_is_photos_of_the_subject_as_asked_and_otherwise_of_other_faces():
    found, _ = samples("smile- hat+")
    people, others = (
        DATA.describe("test", [0]).factors,
        DATA.describe("calibration", [6, 7]).factors,
    )
    free = torch.tensor([name in faces.ATTRIBUTES for name in faces.FACTOR_NAMES])
    wanted = torch.where(free, others, people)
    for name in ("smile", "hat"):
        wanted[:, column(name)] = ASKED[name]
    assert torch.equal(found.truths[0], DATA.render(wanted))
    assert torch.equal(found.truths, samples("smile- hat+", (1, 0))[0].truths.flip(0))


def test_somebody_else_is_asked_for_without_the_subjects_word():
    found, given = samples("smile- hat+")
    ids, (caption,) = given[0][1:]
    assert ids == ("test/0/other",)
    assert caption == DATA.describe("calibration", [8]).prompts[0]
    assert torch.equal(found.before_after[:, 0], found.before_after[:, 1])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompts": ("smile+", "glasses+ smile-")}, "ask for smile in both directions"),
        ({"prompts": ("smile+ smile-",)}, "names smile twice"),
        ({"prompts": ("smile+ hat+", "hat+ smile+")}, r"asks for what 'smile\+ hat\+' asks for"),
        ({"prompts": ("nose+",)}, "unknown attribute 'nose'"),
    ],
)
def test_what_references_cannot_lack_is_refused(settings, said):
    with pytest.raises(BadInput, match=said):
        Personalisation(**(SETTINGS | settings)).check(DATA)


def test_too_many_photos_are_refused():
    class Few(FacesDataset):
        def size(self, split):
            return 10

    with pytest.raises(BadInput, match=r"n=2 subjects with 3 .* need 18 faces of the split"):
        Personalisation(**SETTINGS).check(Few(size=SIZE))


# ---------------------------------------------------------------- planted methods


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method, metrics=METRICS, *settings):
        record = run(
            folder,
            "personalisation",
            f"planted_personalisation.{method}",
            metrics,
            settings or ("benchmark.n=6",),
            model="planted_personalisation.Drawer",
        )
        assert record.main_score == "personalisation_error_zoo1"
        assert record.status is Status.OK, record.reason
        return {name: score.value for name, score in record.scores.items()}

    return found


def test_portraits_as_asked_are_ahead_of_copies_and_of_one_picture(scores):
    small = ("benchmark.n=2", "benchmark.draws=2", "benchmark.prompts=[smile+ hat+]")
    error = {
        name: scores(name, METRICS[:1], *small)["personalisation_error_zoo1"]
        for name in ("Portraits", "Copies", "OnePicture")
    }
    assert error["Portraits"] < 0.4
    assert min(error["Copies"], error["OnePicture"]) > error["Portraits"] + 0.4


@pytest.mark.slow
class TestOrder:
    def test_portraits_as_asked_are_alone_in_front(self, scores):
        error = {
            name: scores(name)["personalisation_error_zoo1"]
            for name in ("Portraits", "Copies", "Deaf", "SomebodyElse", "OnePicture", "OneForAll")
        }
        assert error.pop("Portraits") < 0.12
        assert min(error.values()) > 0.5, error
        assert min(error["Copies"], error["OneForAll"]) > 1.4, "two aims missed"

    def test_each_part_tells_what_is_wrong(self, scores):
        def part(name, method):
            return scores(method)[f"{name}_error_zoo1"]

        for method in ("Copies", "Deaf", "OnePicture", "OneForAll"):
            assert part("subject", method) < 0.1, method
        assert part("subject", "SomebodyElse") == pytest.approx(1, abs=0.15)
        for method in ("SomebodyElse", "OnePicture"):
            assert part("prompt", method) < 0.1, method
        assert part("prompt", "Copies") == pytest.approx(1, abs=0.05)
        assert part("prompt", "Deaf") > 0.4  # some obey by chance
        for method in ("Deaf", "SomebodyElse"):
            assert part("variety", method) < 0.15, method
        for method in ("OnePicture", "OneForAll"):
            assert part("variety", method) == pytest.approx(1, abs=0.2), method
        assert part("variety", "Copies") > 0.4

    def test_what_is_forgotten_shows_apart_from_the_main_score(self, scores):
        good, bad = scores("Portraits"), scores("Obsessed")
        assert bad["personalisation_error_zoo1"] == good["personalisation_error_zoo1"]
        assert good["forgetting_zoo1"] == 0 and good["bleed_zoo1"] == 0
        assert bad["forgetting_zoo1"] > 1 and bad["bleed_zoo1"] > 0.5


def test_a_model_without_captions_is_not_asked_what_it_forgot():
    class Silent(Drawer):
        gives = frozenset()

    editor, streams, model = Seen(), Streams(0), Silent()
    editor.attach(model, streams, Cache(None))
    bench = Bench(editor, model, DATA, streams, Cache(None), torch.device("cpu"), 1)
    found = Personalisation(**SETTINGS).run(Work("glasses+", (0,), 1), bench, {})
    assert found.before_after is None
    assert [prompts for _, _, prompts in editor.given] == [("<subject> glasses",) * 2]


def test_data_without_captions_are_refused():
    class Mute(FacesDataset):
        gives = FacesDataset.gives - {Capability.PROMPTS}

    with pytest.raises(BadInput, match="Mute has none"):
        Personalisation(**SETTINGS).check(Mute(size=SIZE))
