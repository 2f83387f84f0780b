import torch

from latentbench.data import faces
from latentbench.data.faces_dataset import FacesDataset


def test_a_batch_is_what_the_factors_say():
    batch = FacesDataset(size=32).batch("test", [3, 1])
    factors = faces.sample_factors("test", torch.tensor([3, 1]))
    assert batch.ids == ("test/3", "test/1")
    assert torch.equal(batch.factors, factors)
    assert torch.equal(batch.images, faces.render(factors, 32))
    assert list(batch.prompts) == faces.caption(factors)


def test_a_description_is_what_a_batch_knows_and_draws_no_face(monkeypatch):
    data = FacesDataset(size=32)
    batch = data.batch("test", [3, 1])
    monkeypatch.setattr(faces, "render", None)
    known = data.describe("test", [3, 1])
    assert (known.ids, known.prompts, len(known)) == (batch.ids, batch.prompts, 2)
    assert torch.equal(known.factors, batch.factors)


def test_masks_are_those_of_the_parts():
    batch = FacesDataset(size=32).batch("test", [0, 1])
    expected = faces.part_masks(batch.factors, 32)
    assert tuple(batch.masks) == faces.PARTS
    assert len(batch.masks) == len(faces.PARTS)
    for name, mask in batch.masks.items():
        assert torch.equal(mask, expected[name].float())


def test_the_counterfactual_and_its_caption_differ_in_one_factor():
    data, goal = FacesDataset(size=32), torch.ones(2)
    factors = faces.with_factor(faces.sample_factors("test", torch.arange(2)), "hat", goal)
    assert torch.equal(data.counterfactual("test", [0, 1], "hat", goal), faces.render(factors, 32))
    assert list(data.edited_prompts("test", [0, 1], "hat", goal)) == faces.caption(factors)


def test_correlation_reaches_the_faces():
    loose, tied = (FacesDataset(correlation=c).batch("test", range(4)).factors for c in (0.0, 0.9))
    assert not torch.equal(loose, tied)
