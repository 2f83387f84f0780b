"""The embedded text-image pair as a judge of captions, on rendered faces."""

import pytest
import torch
from planted import outputs_of

from latentbench.cache import Cache
from latentbench.data.faces_dataset import CausalFaces, FacesDataset
from latentbench.data.strips_dataset import StripsDataset
from latentbench.errors import NotMeasurable
from latentbench.metric import Surroundings
from latentbench.zoo.judges import load_judge
from metrics.edits.caption_direction import EmbeddedDirection
from metrics.pairs.caption_similarity import CaptionSimilarity

DATA = FacesDataset(size=64)
INDEX = [int(k) for k in DATA.batch("test", range(64)).factors[:, 12].argsort()[:12]]  # no glasses


def score(metric, outputs, prompts):
    faces = DATA.batch("test", INDEX)
    metric.prepare(Surroundings(DATA, torch.device("cpu"), Cache(None), load_judge))
    given = {"sources": faces.images, "source_prompts": faces.prompts, "prompts": tuple(prompts)}
    metric.update(outputs_of(outputs, **given))
    (value,) = metric.compute().values()
    return value.value


def edited(factor, value=1.0):
    goal = torch.full((len(INDEX),), value)
    images = DATA.counterfactual("test", INDEX, factor, goal)
    return images, DATA.edited_prompts("test", INDEX, factor, goal)


def test_the_own_caption_fits_and_another_does_not():
    faces = DATA.batch("test", INDEX)
    own = score(CaptionSimilarity(), faces.images, faces.prompts)
    other = score(CaptionSimilarity(), faces.images, faces.prompts[1:] + faces.prompts[:1])
    assert own > other + 20


@pytest.mark.parametrize("factor", ["glasses", "hat"])
def test_the_true_edit_goes_where_the_caption_goes_and_another_does_not(factor):
    images, prompts = edited(factor)
    wrong, _ = edited({"glasses": "hat", "hat": "glasses"}[factor])
    right = score(EmbeddedDirection(), images, prompts)
    assert right > 0.4 and right > score(EmbeddedDirection(), wrong, prompts) + 0.3


class TestWordsThatThePairNeverSaw:
    class Sentences(FacesDataset):
        """Has captions of words beside those of faces."""

        def describe(self, split, indices):
            known = super().describe(split, indices)
            return type(known)(known.ids, tuple(f"a {p}" for p in known.prompts), known.factors)

    @pytest.mark.parametrize("metric", [CaptionSimilarity, EmbeddedDirection])
    def test_such_data_cannot_feed_a_metric_and_those_of_faces_can(self, metric):
        assert "words of faces alone and not 'a'" in metric().unfed(self.Sentences(size=32))
        for data in (FacesDataset(size=32), CausalFaces(size=32), StripsDataset(width=64)):
            assert metric().unfed(data) is None

    @pytest.mark.parametrize("metric", [CaptionSimilarity, EmbeddedDirection])
    def test_one_that_comes_late_switches_the_metric_off(self, metric):
        faces = DATA.batch("test", INDEX)
        with pytest.raises(NotMeasurable, match="not 'zebra'"):
            score(metric(), faces.images, [*faces.prompts[1:], "smiling zebra"])
