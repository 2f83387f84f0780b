"""The runner does not trust a method: copies in, checks out."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.conformance import toy
from latentbench.editor import Editor
from latentbench.errors import BadOutput, NotFinite
from latentbench.model import LatentModel
from latentbench.streams import Streams
from latentbench.types import Edit, Latent, Space

BATCH = toy.ToyData().batch("test", [0, 1])
EDIT = Edit("hat+", "hat", 1, BATCH.prompts, BATCH.prompts, masks=torch.ones(2, 16, 16))
CURVE = torch.tensor([0.0, 1.0])


class Returns(Editor[LatentModel]):
    """Brightens, and spoils its results as the test asks."""

    families = (LatentModel,)

    def __init__(self, spoil=lambda images: images):
        self.spoil = spoil

    def invert(self, batch):
        return Latent({Space.NOISE: batch.images})

    def decode(self, latent):
        return latent.parts[Space.NOISE]

    def edit(self, batch, edit, strengths):
        return self.spoil(batch.images[:, None] + 0.1 * strengths.reshape(1, -1, 1, 1, 1))

    def represent(self, batch):
        return self.spoil(batch.images.flatten(1))

    def interpolate(self, a, b, steps):
        raise AssertionError("not called here")


def checked(model, editor) -> CheckedEditor:
    editor.attach(model, Streams(0), Cache(None))
    return CheckedEditor(editor)


def test_good_results_pass_as_they_are(pixel):
    editor = Returns()
    found = checked(pixel, editor).edit(BATCH, EDIT, CURVE)
    assert torch.equal(found, editor.edit(BATCH, EDIT, CURVE))
    assert torch.equal(checked(pixel, editor).represent(BATCH), BATCH.images.flatten(1))


def test_sampling_steps_are_the_editor_s_as_they_are_now(pixel):
    editor = Returns()
    outer = checked(pixel, editor)
    assert outer.sampling_steps is None
    editor.steps = 7
    assert outer.sampling_steps == editor.sampling_steps == 7
    assert not hasattr(outer, "steps")


def test_codes_may_be_twice_as_exact_as_images(pixel):
    class Exact(Returns):
        def invert(self, batch):
            return Latent({Space.NOISE: self.spoil(batch.images)})

    found = checked(pixel, Exact(lambda images: images.double())).invert(BATCH)
    assert found.parts[Space.NOISE].dtype == torch.float64
    with pytest.raises(BadOutput, match=r"a float32 or float64 tensor .* got float16"):
        checked(pixel, Exact(lambda images: images.half())).invert(BATCH)


def test_inputs_come_back_unchanged_whatever_a_method_does_to_them(pixel):
    class Greedy(Returns):
        def edit(self, batch, edit, strengths):
            found = super().edit(batch, edit, strengths).clone()
            for tensor in (batch.images, batch.factors, edit.masks, strengths):
                tensor.zero_()
            return found

    before = [BATCH.images.clone(), BATCH.factors.clone(), EDIT.masks.clone(), CURVE.clone()]
    checked(pixel, Greedy()).edit(BATCH, EDIT, CURVE)
    after = [BATCH.images, BATCH.factors, EDIT.masks, CURVE]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x: x[:, -1], r"a float32 tensor \[1, 1, 3, 16, 16\], got float32 \[1, 3, 16, 16\]"),
        (lambda x: x.double(), r"got float64 \[1, 1, 3, 16, 16\]"),
        (lambda x: ((x + 1) * 127.5).to(torch.uint8), "got uint8"),
        (lambda x: x[..., :8], r"got float32 \[1, 1, 3, 16, 8\]"),
        (lambda x: x.numpy(), "got ndarray"),
        (lambda x: None, "got NoneType"),
        (lambda x: (x + 1) * 127.5, r"images in \[-1, 1\], got values in \["),
        (lambda x: (x.clamp(-1, 1) + 1) / 2, r"images in \[-1, 1\], got values in \[0"),
        (lambda x: x + 0.1, "strength 0 differs from the method's own reconstruction by 0.1"),
    ],
)
def test_what_an_edit_may_not_return_is_named(pixel, spoil, words):
    with pytest.raises(BadOutput, match=r"^Returns\.edit .*" + words):
        checked(pixel, Returns(spoil)).edit(BATCH, EDIT, CURVE)


def test_nan_is_named_with_its_image(pixel):
    def second(images):
        images = images.clone()
        images[len(images) // 2 :] = torch.nan
        return images if len(images) > 1 else images.nan_to_num()

    with pytest.raises(NotFinite, match=r"Returns\.represent returned NaN or infinity for test/1;"):
        checked(pixel, Returns(second)).represent(BATCH)


def test_a_code_that_is_no_latent_is_refused(pixel):
    class Bare(Returns):
        def invert(self, batch):
            return batch.images

    with pytest.raises(BadOutput, match=r"Bare\.invert must return a Latent, got Tensor"):
        checked(pixel, Bare()).invert(BATCH)


def test_the_law_of_strength_0_is_checked_once_and_costs_the_cell_nothing(pixel):
    calls = []

    class Counts(Returns):
        def edit(self, batch, edit, strengths):
            calls.append((len(batch), len(strengths)))
            self.model.encode(batch.images)
            self.model.evaluations.forward += 7
            return super().edit(batch, edit, strengths)

    editor, before = checked(pixel, Counts()), pixel.evaluations.forward
    editor.edit(BATCH, EDIT, CURVE)
    editor.edit(BATCH, EDIT, CURVE)
    assert calls == [(1, 1), (2, 2), (2, 2)]
    assert pixel.evaluations.forward - before == 2 * 7
