"""The edits that faces ask for by themselves."""

import pytest
import torch

from latentbench.data import face_edits, faces
from latentbench.data.faces_dataset import FacesDataset
from latentbench.data.pie_bench import TYPES
from latentbench.errors import BadInput

DATA = FacesDataset(size=32)
FIRST = range(64)


def test_kinds_are_named_as_in_pie_bench_and_have_as_many_images_as_its_largest():
    assert set(DATA.edit_kinds) < set(TYPES)
    listed = [k for kind in DATA.edit_kinds for k in DATA.of_kind("test", kind)]
    assert sorted(listed) == list(range(face_edits.EDITED))
    assert min(len(DATA.of_kind("test", kind)) for kind in DATA.edit_kinds) >= 140
    with pytest.raises(BadInput, match="change_style"):
        DATA.of_kind("test", "change_style")


@pytest.mark.parametrize("kind", DATA.edit_kinds)
def test_one_word_of_the_caption_changes_and_the_answer_is_what_it_means(kind):
    index = DATA.of_kind("test", kind)[:12]
    edit, wanted = DATA.edit("test", index), DATA.edited_factors("test", index)
    before = DATA.describe("test", index).factors
    assert edit.name == kind and edit.attribute is None
    assert list(edit.source_prompts) == faces.caption(before)
    assert list(edit.target_prompts) == faces.caption(wanted)
    assert (wanted != before).sum(1).tolist() == [1] * len(index)
    for source, target in zip(edit.source_prompts, edit.target_prompts, strict=True):
        pairs = zip(source.split(), target.split(), strict=True)
        assert sum(a != b for a, b in pairs) == 1
    moved = (wanted - before).abs().amax(1)
    assert bool((moved >= face_edits.LEAST).all())
    used = {faces.FACTOR_NAMES[k] for k in (wanted != before).nonzero()[:, 1].tolist()}
    assert used <= set(face_edits.KINDS[kind]) & set(DATA.attributes)


def test_things_are_put_on_where_there_are_none_and_taken_off_where_they_are_whole():
    for kind, change in (("add_object", 1.0), ("delete_object", -1.0)):
        index = DATA.of_kind("test", kind)
        before = DATA.describe("test", index).factors
        moved = DATA.edited_factors("test", index) - before
        assert moved[moved != 0].tolist() == [change] * len(index)


def test_the_mask_is_what_the_answer_changes():
    batch, edit = DATA.batch("test", FIRST), DATA.edit("test", FIRST)
    answer = DATA.render(DATA.edited_factors("test", FIRST))
    apart = (answer - batch.images).abs().amax(1) / 2
    assert float(apart[edit.masks == 0].max()) <= 2 / 255
    share = edit.masks.mean((1, 2))
    assert float(share.min()) > 0.01 and float(share.max()) < 0.9


def test_an_edit_depends_on_the_face_alone():
    whole, part = DATA.edited_factors("test", FIRST), DATA.edited_factors("test", [9, 4])
    assert torch.equal(part, whole[[9, 4]])
    assert not torch.equal(whole, DATA.edited_factors("calibration", FIRST))
    one = DATA.edit("test", [9])
    assert one.target_prompts == DATA.edit("test", [4, 9]).target_prompts[1:]
