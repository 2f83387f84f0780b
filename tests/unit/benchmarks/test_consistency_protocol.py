"""Consistency: whom the model invents, and where planted methods come out."""

from functools import cache

import pytest
import torch
from planted_cells import run
from planted_editors import SIZE
from planted_personalisation import Drawer, Remembered

from benchmarks.consistency import Consistency
from latentbench.benchmark import Bench, Work
from latentbench.cache import Cache
from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.records import Status
from latentbench.streams import Streams

DATA = FacesDataset(size=SIZE)
SETTINGS = {"n": 2, "prompts": ("glasses+", "smile- hat+"), "draws": 2}


class Counted(Drawer):
    """Counts what it draws."""

    asked = 0

    def sample(self, latent, **options):
        self.asked += len(latent)
        return super().sample(latent, **options)


def test_the_reference_is_the_models_own_picture_and_drawn_once(tmp_path):
    editor, streams, model, cached = Remembered(), Streams(0), Counted(), Cache(tmp_path)
    editor.attach(model, streams, cached)
    bench = Bench(editor, model, DATA, streams, cached, torch.device("cpu"), 2)
    benchmark = Consistency(**SETTINGS)
    one, two = (
        benchmark.run(Work(group, (0, 1), 2), bench, {}) for group in benchmark.groups(DATA)
    )
    assert model.asked == 2 + 2 * 2 * 2  # two people, and a pair of somebody else in each row
    assert torch.equal(one.sources, two.sources)
    noise = model.prior(streams, ("test/1/invented",))
    known = model.drawn(noise)[0]
    for name, end in {"glasses": 0.0, "smile": 1.0, "hat": 0.0}.items():
        known[faces.factor_index(name)] = end
    assert torch.allclose(one.sources[1], DATA.render(known[None])[0])
    who = [faces.factor_index(name) for name in faces.IDENTITY]
    assert (one.factors[1] - known)[who].abs().mean() < 0.1  # as judges read it
    assert torch.equal(one.truths[1], DATA.render(_truth(one.factors[1])))


def _truth(person):
    """Return factors of the photos with glasses that the second person is held against."""
    others = DATA.describe("calibration", [8, 9]).factors  # the first has 0 to 6, the reference 7
    free = torch.tensor([name in faces.ATTRIBUTES for name in faces.FACTOR_NAMES])
    found = torch.where(free, others, person)
    found[:, faces.factor_index("glasses")] = 1
    return found


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """Return a function from a planted method to the scores of its cell."""
    folder = tmp_path_factory.mktemp("planted")

    @cache
    def found(method):
        record = run(
            folder,
            "consistency",
            f"planted_personalisation.{method}",
            ("personalisation_error",),
            ("benchmark.n=5", "benchmark.prompts=[smile+ hat+]"),
            model="planted_personalisation.Drawer",
        )
        assert record.main_score == "personalisation_error_zoo1"
        assert record.status is Status.OK, record.reason
        return {name: score.value for name, score in record.scores.items()}

    return found


@pytest.mark.slow
def test_pictures_of_the_invented_person_are_alone_in_front(errors):
    best = errors("Remembered")
    assert best["personalisation_error_zoo1"] < 0.35
    for method in ("ManyPeople", "OneFace", "Portraits"):
        found = errors(method)
        assert found["subject_error_zoo1"] > best["subject_error_zoo1"] + 0.5, method
        assert found["prompt_error_zoo1"] < 0.15, method
    assert errors("Copies")["personalisation_error_zoo1"] > 1.4
