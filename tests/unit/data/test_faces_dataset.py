import torch

from latentbench.data import faces
from latentbench.data.faces_dataset import CausalFaces, FacesDataset


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


# ---------------------------------------------------------------- causes and effects

INDEX = torch.arange(8000)


def changed(factor: str, value: float, correlation: float = 0.8) -> set[str]:
    values = torch.full((len(INDEX),), value)
    before = faces.sample_factors("test", INDEX, correlation)
    after = faces.intervened("test", INDEX, correlation, {factor: values})
    return {
        n for n, moved in zip(faces.FACTOR_NAMES, (after != before).any(0), strict=True) if moved
    }


def test_an_intervention_moves_effects_and_leaves_causes():
    assert changed("age", 0.9) == {"age", "glasses", "beard"}
    assert changed("smile", 0.9) == {"smile", "mouth_open"}
    assert changed("beard", 0.0) == {"beard"}
    assert changed("glasses", 1.0) == {"glasses"}
    assert changed("age", 0.9, correlation=0.0) == {"age"}


def test_effects_are_those_of_faces_that_have_the_value_by_themselves():
    """Nothing acts on a driver, so to set it is to meet it."""
    tied = faces.sample_factors("test", INDEX, 0.8)
    for driver, value in (("age", 0.9), ("age", 0.2), ("smile", 0.1)):
        met = tied[(tied[:, faces.factor_index(driver)] - value).abs() < 0.05]
        values = torch.full((len(INDEX),), value)
        done = faces.intervened("test", INDEX, 0.8, {driver: values})
        assert float((met.mean(0) - done.mean(0)).abs().max()) < 0.06


def test_to_set_what_is_there_changes_nothing():
    before = faces.sample_factors("test", INDEX, 0.8)
    for driver in ("age", "skin"):
        own = before[:, faces.factor_index(driver)]
        inside = (own > 0.05) & (own < 0.95)
        after = faces.intervened("test", INDEX, 0.8, {driver: own})
        assert float((after - before)[inside].abs().max()) < 2e-3


def test_the_counterfactual_of_a_cause_shows_its_effects():
    data, goal = CausalFaces(size=32), torch.ones(2)
    factors = faces.intervened("test", torch.arange(2), 0.8, {"age": goal})
    assert torch.equal(data.counterfactual("test", [0, 1], "age", goal), data.render(factors))
    assert list(data.edited_prompts("test", [0, 1], "age", goal)) == faces.caption(factors)
    assert torch.equal(data.batch("test", [3]).factors, FacesDataset(correlation=0.8)
                       .batch("test", [3]).factors)  # fmt: skip


def test_what_is_set_beside_its_cause_has_the_value_it_is_set_to():
    data, one, none = CausalFaces(size=32), torch.ones(2), torch.zeros(2)
    both = data.with_factors("test", [0, 1], {"glasses": none, "age": one})
    alone = data.with_factors("test", [0, 1], {"age": one})
    where = [faces.factor_index(name) for name in ("glasses", "beard")]
    assert both[:, where[0]].tolist() == [0, 0] and bool((both[:, where[1]] > 0).all())
    both[:, where[0]] = alone[:, where[0]]
    assert torch.equal(both, alone)
