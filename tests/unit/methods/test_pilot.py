"""PILOT: a hole is filled while the background is held."""

from dataclasses import replace

import pytest
import torch
import transformers_toy as small
from controlnets import save_controlnet
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict

from benchmarks.inpainting import Inpainting
from benchmarks.local_editing import LocalEditing
from latentbench.cache import Cache
from latentbench.cells.checked_editor import CheckedEditor
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.data.edges import edges
from latentbench.data.faces_dataset import FacesDataset
from latentbench.errors import BadInput
from latentbench.models.control import ControlledDiffusion
from latentbench.models.latent_diffusion import LatentDiffusion
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


# ---------------------------------------------------------------- with a ControlNet

TWO = {"steps": 2, "updates": 1}


@pytest.fixture(scope="module")
def controlled(zoo, latent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("control")
    path, net = str(zoo / "latent"), save_controlnet(folder, latent.network, latent.image_size)
    return ControlledDiffusion(path=path, controlnet=net, steps=5, guidance=3.0)


def shown(model) -> tuple[Batch, Edit]:
    """Images, and an edit with reference images."""
    batch, edit = asked(model)
    return batch, replace(
        edit, references=toy.ToyData(model.image_size).batch("test", [2, 3]).images
    )


def test_control_images_steer_and_strength_0_stays_exact(controlled, latent):
    batch, edit = shown(controlled)
    plain = attached(latent, **TWO).edit(batch, edit, BOTH)
    assert torch.equal(attached(controlled, **TWO).edit(batch, edit, BOTH), plain)
    found = {}
    for control in ("references", "edges"):
        found[control] = attached(controlled, control=control, **TWO).edit(batch, edit, BOTH)
        assert torch.equal(found[control][:, 0], plain[:, 0])
        assert float((found[control] - plain)[:, 1].abs().mean()) > 0.01
    drawn = replace(edit, references=2 * edges(edit.references) - 1)
    same = attached(controlled, control="references", **TWO).edit(batch, drawn, BOTH)
    torch.testing.assert_close(same, found["edges"], rtol=1e-3, atol=1e-3)


def test_each_image_has_its_own_control_image(controlled):
    batch, edit = shown(controlled)
    editor = attached(controlled, control="edges", **TWO)
    z, second = controlled.encode(batch.images), Batch(("1",), batch.images[1:])
    alone = replace(
        edit, target_prompts=PROMPTS[1:], masks=edit.masks[1:], references=edit.references[1:]
    )
    together = editor.filled(z, batch, edit, 0)[1:]
    found = editor.filled(z[1:], second, alone, 0)
    torch.testing.assert_close(found, together, rtol=1e-3, atol=1e-3)


def test_both_networks_of_each_call_are_counted(controlled):
    batch, edit = shown(controlled)
    before = replace(controlled.evaluations)
    attached(controlled, control="edges", **TWO).edit(batch, edit, torch.ones(1))
    moved = 1  # of the two steps, one move
    assert controlled.evaluations.forward - before.forward == 2 * 2 * (2 * 2 + moved)
    assert controlled.evaluations.backward - before.backward == 2 * 2 * moved


def test_control_goes_with_a_lora(zoo, controlled, tmp_path):
    path = str(zoo / "latent")
    other = LatentDiffusion(path=path, steps=5)
    layers = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"])
    other.network.add_adapter(layers)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=get_peft_model_state_dict(other.network)
    )
    both = ControlledDiffusion(
        path=path, controlnet=controlled.controlnet.config._name_or_path, adapter=str(tmp_path),
        steps=5,
    )  # fmt: skip
    batch, edit = shown(both)
    found, without = (
        attached(model, control="edges", **TWO).edit(batch, edit, BOTH)
        for model in (both, controlled)
    )
    assert torch.equal(found[:, 0], without[:, 0])
    assert float((found - without)[:, 1].abs().mean()) > 0.001


def test_control_without_references_or_a_controlnet_is_refused(latent, controlled):
    batch, edit = asked(controlled)
    with pytest.raises(BadInput, match=r"has no references.*give_references=edges"):
        attached(controlled, control="edges").edit(batch, edit, BOTH)
    data = FacesDataset(size=16)
    for benchmark in (Inpainting, LocalEditing):
        masks = {"give_masks": True} if benchmark is LocalEditing else {}
        given, silent = benchmark(give_references="edges", **masks), benchmark(**masks)
        told, free = {"control": "edges"}, {"control": None}
        for settings, model, asking, lacking in (
            (told, controlled, given, None),
            (told, controlled, silent, "references"),
            (told, latent, given, "control"),
            (free, latent, silent, None),
            (free, controlled, silent, None),
        ):
            found = Parts(Pilot, settings, type(model), data, asking).misfit()
            assert found is None if lacking is None else f"Pilot needs {lacking}, " in str(found)
