"""DiffAttack on an exact denoiser and a toy classifier."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.editing.diffattack import DiffAttack, SelfMaps

BOTH = torch.tensor([0.0, 1.0])


def attached(model, **settings) -> DiffAttack:
    editor = DiffAttack(**{"steps": 8, "structure": 0.0, "rate": 0.05} | settings)
    parts = {"classifier": toy.PatternClassifier()}
    editor.attach(model, Streams(0), Cache(None), parts)
    return editor


def lacking(data, count=6):
    """Return images without hats."""
    found = [k for k in range(60) if data.batch("test", [k]).factors[0, 1] < 0.4]
    return data.batch("test", found[:count])


def odds(images):
    return toy.PatternClassifier().log_odds(images)[..., 1]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_what_is_sampled_is_misread_and_the_rest_is_kept(gaussian, keep):
    """The first that is misread is nearer to the source than the last."""
    batch = lacking(toy.ToyData(gaussian.image_size))
    editor = attached(gaussian, keep=keep)
    kept, moved = editor.edit(batch, Edit("hat+", "hat"), BOTH).unbind(1)
    assert bool((odds(kept) < 0).all()) and bool((odds(moved) > 0).all())
    change = (moved - kept).square().flatten(1).mean(1)
    longer = attached(gaussian, keep="last").edit(batch, Edit("hat+", "hat"), BOTH[1:])[:, 0]
    assert bool((change <= (longer - kept).square().flatten(1).mean(1) + 1e-8).all())


def test_a_random_move_of_the_same_length_is_read_rightly(gaussian):
    batch, edit = lacking(toy.ToyData(gaussian.image_size)), Edit("hat+", "hat")
    editor = attached(gaussian)
    condition = gaussian.condition(None, len(batch))
    x_t = gaussian.encode(batch.images)
    length = (editor.attacked(x_t, condition, edit) - x_t).flatten(1).norm(dim=1)
    drawn = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
    drawn = drawn * (length / drawn.flatten(1).norm(dim=1))[:, None, None, None]
    read = odds(editor.image(x_t + drawn, condition).clamp(-1, 1))
    assert float((read > 0).float().mean()) < 0.5


def test_nothing_moves_without_a_loss(gaussian):
    batch = lacking(toy.ToyData(gaussian.image_size))
    kept, moved = attached(gaussian, attack=0.0).edit(batch, Edit("hat+", "hat"), BOTH).unbind(1)
    torch.testing.assert_close(kept, moved)


def test_the_structure_is_kept_where_it_counts(pixel):
    """And the maps are those of every layer and step of the chain."""
    batch, gaps = lacking(toy.ToyData(pixel.image_size), 2), []
    for structure in (1e-9, 1e7):
        editor = attached(pixel, structure=structure, keep="last", iterations=4)
        condition = pixel.condition(None, len(batch))
        x_t = pixel.encode(batch.images)
        found = editor.attacked(x_t, condition, Edit("hat+", "hat"))
        source = SelfMaps()
        editor.image(x_t, condition, source)
        assert {step for step, _ in source.maps} == {6, 7}
        maps = SelfMaps(source)
        editor.image(found, condition, maps)
        gaps.append(float(maps.gap().mean()))
    assert 0 < gaps[1] < 0.5 * gaps[0]


def test_an_edit_without_an_attribute_is_refused(gaussian):
    batch = lacking(toy.ToyData(gaussian.image_size), 2)
    with pytest.raises(BadInput, match="names no attribute to misread; choose benchmark=attack"):
        attached(gaussian).edit(batch, Edit("free"), BOTH)
