"""PILOT: a hole is filled while the background is held."""

from dataclasses import replace

import pytest
import torch
import transformers_toy as small

from latentbench.cache import Cache
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.blending import latent_mask
from latentbench.sampling.loop import denoise, generate, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.editing.pilot import CentredAttention, HeldBackground, Pilot, hole_at

BOTH = torch.tensor([0.0, 1.0])
FEW = {"steps": 4, "interval": 1, "updates": 2}
PROMPTS = ("a face with hat", "a smile face")


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    path = small.save_sd3(tmp_path_factory.mktemp("sd3"), small.SD35_MEDIUM)
    return TransformerFlow(path=path, steps=4, guidance=3.0)


def asked(model) -> tuple[Batch, Edit]:
    """Images, and an edit of their left half."""
    size = model.image_size
    masks = torch.zeros(2, size, size)
    masks[..., : size // 2] = 1
    images = toy.ToyData(size).batch("test", range(2)).images
    return Batch(("0", "1"), images), Edit("hat", target_prompts=PROMPTS, masks=masks)


def attached(model, **settings) -> Pilot:
    editor = Pilot(**FEW | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def held(model, editor) -> HeldBackground:
    batch, edit = asked(model)
    z = model.encode(batch.images)
    noise = torch.randn(2, 5, *z.shape[1:], generator=torch.Generator().manual_seed(0))
    told, content = model.condition(PROMPTS, 2), editor.content(PROMPTS)
    return HeldBackground(model, told, z, latent_mask(edit.masks, z), content, editor, noise, 0)


@pytest.mark.parametrize("name", ["latent", pytest.param("flow", marks=pytest.mark.slow)])
def test_strength_0_is_the_image_and_moves_hold_the_background(name, request):
    model = request.getfixturevalue(name)
    batch, edit = asked(model)
    z, outside = model.encode(batch.images), edit.masks[:, None] == 0
    gaps = {}
    for updates in (0, 4):
        editor = attached(model, updates=updates, optimised=1.0, guidance=1.0)
        assert torch.equal(editor.filled(z, batch, edit, 4), z)
        made = editor.filled(z, batch, edit, 0)
        hole = latent_mask(edit.masks, z)
        gaps[updates] = float(((made - z) * (1 - hole)).square().sum())
    assert gaps[4] < 0.9 * gaps[0]
    pasted = attached(model, background="paste").edit(batch, edit, BOTH)[:, 1]
    assert torch.equal(pasted[outside.expand_as(pasted)], batch.images[outside.expand_as(pasted)])


def test_strength_0_is_what_a_lossy_autoencoder_makes_of_the_image(latent):
    """As the runner checks it: no pixels are the source's then."""
    batch, edit = asked(latent)
    editor = attached(latent, background="paste", updates=0)
    found = CheckedEditor(editor).edit(batch, edit, BOTH)
    expected = latent.decode(latent.encode(batch.images))
    assert float((expected - batch.images).abs().mean()) > 0.1
    assert torch.equal(found[:, 0], expected)


@pytest.mark.parametrize("name", ["latent", "flow"])
def test_the_background_reads_the_first_token_alone(name, request):
    """Its output changes in every place, that of the hole nowhere."""
    model = request.getfixturevalue(name)
    batch, edit = asked(model)
    z = model.encode(batch.images)
    hole, content = latent_mask(edit.masks, z), attached(model).content(PROMPTS)
    seen: list[tuple[torch.Tensor, ...]] = []

    class Listening(CentredAttention):
        def attention(self, step, call):
            out = super().attention(step, call)
            if out is not None and not seen:
                image = call.key.shape[2] - call.text
                maps = call.probabilities()[:, :, : (image or call.query.shape[2])]
                lost = maps[..., image + 1 :].sum(-1)
                kept = (out - call.attend())[:, :, : lost.shape[2]].abs().amax((1, 3))
                inside = hole_at(hole, round(lost.shape[2] ** 0.5)) > 0
                seen.append((kept[inside].max(), kept[~inside].min(), lost.min()))
            return out

    x = torch.randn(2, *model.latent_shape)
    told = plain(model.condition(PROMPTS, 2))
    denoise(model, x, told, grid=model.grid(4), level=1, interventions=[Listening(hole, content)])
    inside, outside, lost = seen[0]
    assert float(inside) < 1e-5 < float(outside) and float(lost) > 0


def test_moves_lower_each_image_s_loss(latent):
    editor = attached(latent, updates=6, rate=0.05, first_rate=0.05)
    background = held(latent, editor)
    x = torch.randn(2, *latent.latent_shape)
    told = plain(background.condition)
    generate(latent, x, told, grid=latent.grid(4), stop=1, interventions=[background])
    losses = torch.stack(background.losses[0])
    assert losses.shape == (6, 2) and bool((losses[-1] < losses[0]).all())


def test_the_attention_loss_centres_the_words(latent):
    """Alone, it raises the words' share of the hole; with an equal share everywhere it is 0."""
    background = held(latent, attached(latent))
    centred = CentredAttention(background.hole, background.content)
    even = torch.full((2, 3, 64, 12), 1 / 12)
    flat = centred._read(even, hole_at(background.hole, 8))
    assert float(flat.abs().max()) < 1e-6
    even[0, :, hole_at(background.hole, 8)[0] > 0] *= 2
    found = centred._read(even, hole_at(background.hole, 8))
    assert float(found[0]) == pytest.approx(-4 / 12) and float(found[1].abs()) < 1e-6
    nothing = CentredAttention(torch.zeros(2, 1, 8, 8), background.content)
    assert nothing._read(even, hole_at(nothing.hole, 8)).tolist() == [0, 0]


def test_a_thin_hole_does_not_vanish():
    hole = torch.zeros(1, 1, 8, 8)
    hole[..., 3, :] = 1
    assert hole_at(hole, 8).sum() == 8 and hole_at(hole, 2).tolist() == [[1, 1, 0, 0]]


def test_evaluations(latent):
    """Two forward and backward a move and image, in every second of the optimised steps."""
    batch, edit = asked(latent)
    editor = attached(latent, interval=2, updates=3, optimised=0.75)
    before = replace(latent.evaluations)
    editor.edit(batch, edit, torch.ones(1))
    b, n, moved = 2, 4, 2 * 3
    assert latent.evaluations.forward - before.forward == b * (2 * n + moved)
    assert latent.evaluations.backward - before.backward == b * moved


def test_an_edit_without_masks_is_refused(latent):
    batch, edit = asked(latent)
    with pytest.raises(BadInput, match=r"edit 'hat' has no masks.*give_masks=true"):
        attached(latent).edit(batch, replace(edit, masks=None), BOTH)
