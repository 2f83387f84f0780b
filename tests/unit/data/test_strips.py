"""Strips: what a row shares, what is each face's own, and that a window is a strip too."""

import inspect

import pytest
import torch

from latentbench.data import faces, strips
from latentbench.data.strips_dataset import StripsDataset

INDEX = torch.tensor([3, 1])
COLUMNS = [faces.factor_index(name) for name in strips.GLOBALS]


def test_faces_of_a_strip_share_some_factors_and_no_others():
    row = strips.row("test", INDEX, 256)
    shared = strips.shared_factors("test", INDEX)
    assert torch.equal(row.factors[..., COLUMNS], shared[:, None].expand(-1, 8, -1))
    assert not torch.equal(shared[0], shared[1])
    others = [faces.factor_index(name) for name in strips.LOCALS]
    assert len(others) + len(COLUMNS) == len(faces.FACTORS)
    assert (row.factors[..., others].std(1) > 0).all()


def test_faces_stand_a_pitch_apart_and_reach_beyond_both_ends():
    row = strips.row("test", torch.arange(64), 200)
    assert (row.middles.diff(dim=1) == strips.PITCH).all()
    assert (row.middles[:, 0] < 0).all() and (row.middles[:, 0] >= -strips.PITCH).all()
    assert (row.middles[:, -1] + strips.PITCH >= 200 + strips.REACH).all()
    assert len(set(row.middles[:, 0].tolist())) > 20  # windows of all kinds


def test_a_face_alone_is_the_renderers():
    """But at its edges, where the light of the renderer falls on the background as well."""
    factors = faces.sample_factors("test", torch.arange(4))
    row = strips.Row(factors[:, None], torch.full((4, 1), 32))
    gap = (strips.draw(row, 64) - faces.render(factors)).abs()
    assert float(gap.mean()) < 0.02 and float((gap > 0.25).float().mean()) < 0.01
    inside = faces.part_masks(factors)["nose"][:, None].expand_as(gap)
    assert float(gap[inside].max()) < 0.05


def test_a_window_of_a_strip_is_a_strip():
    row = strips.row("test", INDEX, 256)
    whole = strips.draw(row, 256)
    part = strips.draw(strips.Row(row.factors, row.middles - 100), 64)
    torch.testing.assert_close(part, whole[..., 100:164])


def test_a_nearer_face_is_in_front_of_the_one_to_its_left():
    factors = faces.sample_factors("test", torch.arange(2))
    factors[:, faces.factor_index("background")] = 0.5
    both = strips.draw(strips.Row(factors[None], torch.tensor([[32, 80]])), 112)
    right = strips.draw(strips.Row(factors[None, 1:], torch.tensor([[80]])), 112)
    torch.testing.assert_close(both[..., 78:82], right[..., 78:82])


def test_captions_have_a_word_for_each_shared_factor():
    values = torch.tensor([[0.9, 0.5, 1.0, 0.1]])
    assert strips.caption(values) == ["rightlit green hat white"]


@pytest.mark.parametrize("width", [0, 10_000])
def test_a_width_that_faces_cannot_fill_is_refused(width):
    with pytest.raises(ValueError, match="width must lie in 1"):
        strips.row("test", INDEX, width)


def test_the_widest_setting_is_the_widest_that_faces_fill():
    (bounds,) = inspect.signature(StripsDataset).parameters["width"].annotation.__metadata__
    assert bounds.high == strips.WIDEST


def test_the_data_set_gives_strips_with_what_they_share():
    data = StripsDataset(width=128)
    batch, known = data.batch("test", [3, 1]), data.describe("test", [3, 1])
    assert batch.images.shape == (2, 3, 64, 128) and batch.ids == ("test/3", "test/1")
    assert torch.equal(batch.images, strips.render("test", INDEX, 128))
    assert torch.equal(known.factors, strips.shared_factors("test", INDEX))
    assert known.prompts == batch.prompts == data.shared_captions(known.factors)
    factors, middles = data.members("test", [3, 1])
    assert factors.shape[:2] == middles.shape and data.pitch == strips.PITCH
    assert torch.equal(data.render_members(factors[0]), faces.render(factors[0]))
