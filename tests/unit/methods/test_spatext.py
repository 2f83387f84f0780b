"""SpaText: the map, the new channels, guidance by several conditions, what a fit learns."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from latentbench.cache import Cache
from latentbench.cells.catalogue import option
from latentbench.cells.compatibility import Parts
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.fitting import Fitting
from latentbench.sampling.loop import denoise, plain
from latentbench.streams import Streams
from latentbench.types import Capability, Edit
from methods.editing.spatext import (
    CHANNELS,
    PRIOR,
    UP,
    RegionMap,
    SpaText,
    area_mask,
    cut,
    read_channels,
    spatial_map,
)

DATA, STRENGTHS = toy.ToyData(), torch.tensor([0.0, 1.0])
ASKED = ("a face with hat", "a face with glasses")


def attached(model, folder: Path | None = None, fitting: Fitting | None = None, **settings):
    editor = SpaText(**{**SpaText.small, "steps": 3, **settings})
    editor.attach(model, Streams(0), Cache(folder), {"scorer": toy.PatternScorer()}, fitting)
    return editor


def fitted(model, *args, **settings):
    editor = attached(model, *args, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [])
    return editor


@pytest.fixture(scope="module")
def learned(latent):
    return fitted(latent, iterations=40, images=64, batch=8, learning_rate=0.01)


def asked(rows: int = 2, where: slice = slice(0, 8)) -> tuple:
    masks = torch.zeros(rows, 16, 16)
    masks[..., where] = 1
    batch = DATA.batch("test", range(rows))
    return batch, Edit("add", None, 1, ("a face",) * rows, ASKED[:rows], masks)


def told_zeros(model, monkeypatch):
    """Have a model say nothing by zeros; return what networks are told, and captions."""
    condition, forward, told, captions = model.condition, model.forward, [], []
    zeros = condition(None, 1).map(torch.zeros_like)
    monkeypatch.setattr(model, "unconditional", lambda rows: zeros.repeat(rows))

    def encode(prompts, rows):
        captions.extend(prompts)
        return condition(prompts, rows)

    def watched(x, timesteps, condition, taps=None):
        told.append(condition.tensors["encoder_hidden_states"])
        return forward(x, timesteps, condition, taps)

    monkeypatch.setattr(model, "condition", encode)
    monkeypatch.setattr(model, "forward", watched)
    return told, captions


def start(model, rows: int = 2):
    x = torch.randn(rows, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    return x, {"grid": model.grid(3), "level": 1}


def drawn_map(rows: int = 2):
    codes = F.normalize(torch.tensor([[[1.0, 2.0, 2.0]], [[0.0, 3.0, 4.0]]]), dim=2)[:rows]
    masks = torch.zeros(rows, 1, 8, 8)
    masks[..., :4] = 1
    return spatial_map(codes, masks)


# ---------------------------------------------------------------- the map


def test_the_map_is_each_regions_embedding_and_nothing_elsewhere():
    codes = F.normalize(torch.tensor([[[1.0, 2.0, 2.0], [0.0, 3.0, 4.0]]]), dim=2)
    masks = torch.zeros(1, 2, 2, 3)
    masks[0, 1, :, :2], masks[0, 0, 0, 0] = 1, 1  # the smaller one lies on the larger one
    found = spatial_map(codes, masks)[0] / 3**0.5
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([1.0, 2.0, 2.0]) / 3)
    for cell in ((0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(found[:, *cell], torch.tensor([0.0, 0.6, 0.8]))
    assert found[:, :, 2].abs().sum() == 0
    turned = spatial_map(codes.flip(1), masks.flip(1))[0] / 3**0.5
    assert torch.equal(turned, found)


def test_a_mask_is_shrunk_by_area_and_a_thin_one_does_not_vanish():
    mask = torch.zeros(3, 1, 8, 8)
    mask[0, 0, :4, :6] = 1  # one cell whole, one by half
    mask[1, 0, 0, 1:4] = 1  # 3 of 16 pixels of a cell, and none of another
    assert area_mask(mask, (2, 2))[:, 0].tolist() == [
        [[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]],
    ]  # fmt: skip
    mask[0, 0, 0, 5] = 0
    assert area_mask(mask, (2, 2))[0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]


# ---------------------------------------------------------------- the new channels


def test_new_channels_are_a_wider_first_layer():
    first = torch.nn.Conv2d(4, 6, 3, padding=1)
    draw = torch.Generator().manual_seed(0)
    z, regions = torch.randn(2, 4, 8, 8, generator=draw), torch.randn(2, 3, 8, 8, generator=draw)
    project, more = torch.randn(5, 3, generator=draw), torch.randn(6, 5, 3, 3, generator=draw)
    projected = torch.einsum("pd,bdhw->bphw", project, regions)
    wide = torch.cat([first.weight, more], 1)
    expected = F.conv2d(torch.cat([z, projected], 1), wide, first.bias, padding=1)
    found = first(z) + read_channels(regions, project, more)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_before_the_fit_the_model_is_as_it_was(latent):
    x, at = start(latent)
    terms = plain(latent.condition(ASKED, 2))
    before = denoise(latent, x, terms, **at)
    change = RegionMap(attached(latent)._first(3), drawn_map(), ("condition",))
    after = denoise(latent, x, terms, **at, interventions=[change])
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_only_the_named_branches_are_told_the_map(latent, learned):
    x, at = start(latent)
    terms = plain(latent.condition(ASKED, 2))
    found = []
    for regions, branches in (
        (drawn_map(), ()), (0 * drawn_map(), ("condition",)), (drawn_map(), ("condition",)),
    ):  # fmt: skip
        change = RegionMap(learned.state(), regions, branches)
        found.append(denoise(latent, x, terms, **at, interventions=[change])[1])
    assert torch.equal(found[0], found[1])
    assert float((found[2] - found[0]).abs().max()) > 1e-3


# ---------------------------------------------------------------- guidance


def alone(model, learned, x, at, told: bool, prompts):
    """Return eps of one condition, in a pass of its own."""
    change = RegionMap(learned.state(), drawn_map(), ("condition",) if told else ())
    return denoise(model, x, plain(model.condition(prompts, 2)), **at, interventions=[change])[1]


@pytest.mark.parametrize(("fast", "passes"), [(False, 3), (True, 2)])
def test_guidance_adds_a_direction_for_each_condition_or_one_for_all(latent, learned, fast, passes):
    editor = attached(latent, guidance=2.0, local_guidance=5.0, fast=fast)
    known, target, alpha = ("a face",) * 2, ASKED, torch.tensor([1.0, 0.5])
    x, at = start(latent)
    terms = editor._terms(latent.condition(known, 2), latent.condition(target, 2), alpha)
    change = RegionMap(learned.state(), drawn_map(), ("regions", "all"))
    before = latent.evaluations.forward
    _, found = denoise(latent, x, terms, **at, interventions=[change])
    assert latent.evaluations.forward - before == passes * 2
    none = alone(latent, learned, x, at, False, known)
    words = alone(latent, learned, x, at, False, target)
    regions = alone(latent, learned, x, at, True, known)
    every = alone(latent, learned, x, at, True, target)
    way = 2 * (every - none) if fast else 2 * (words - none) + 5 * (regions - none)
    expected = none + alpha[:, None, None, None] * way
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_condition_of_scale_0_costs_nothing(latent):
    known = latent.condition(None, 1)
    found = {
        scales: [t.branch for t in attached(
            latent, guidance=scales[0], local_guidance=scales[1], fast=scales[2]
        )._terms(known, known, torch.ones(1))]
        for scales in ((3.0, 3.0, False), (3.0, 0.0, False), (0.0, 3.0, False), (3.0, 3.0, True))
    }  # fmt: skip
    assert list(found.values()) == [
        ["none", "words", "regions"], ["none", "words"], ["none", "regions"], ["none", "all"],
    ]  # fmt: skip


# ---------------------------------------------------------------- edits


def test_the_map_moves_the_image_where_the_words_alone_do_not_say(latent, learned):
    """Same captions, another mask: another image; and strength 0 is one reconstruction of all."""
    left, right = (
        learned.edit(*asked(where=where), STRENGTHS) for where in (slice(0, 8), slice(8, 16))
    )
    own = learned.decode(learned.invert(asked()[0]))
    for images in (left, right):
        torch.testing.assert_close(images[:, 0], own, rtol=1e-4, atol=1e-4)
    assert float((left[:, 1] - right[:, 1]).abs().max()) > 1e-4


def test_learned_things_saved_and_loaded_give_equal_edits(latent, learned):
    other = attached(latent)
    other.load_state(learned.state())
    batch, edit = asked()
    assert torch.equal(other.edit(batch, edit, STRENGTHS), learned.edit(batch, edit, STRENGTHS))


def test_a_region_is_told_the_words_that_are_new(latent, learned, monkeypatch):
    told = []
    monkeypatch.setattr(learned, "codes", lambda texts: told.append(list(texts)) or
                        torch.eye(3)[: len(texts)])  # fmt: skip
    batch, edit = asked()
    learned.edit(batch, edit, STRENGTHS)
    same = Edit("fill", None, 1, ASKED, ASKED, edit.masks)
    learned.edit(batch, same, STRENGTHS)
    assert told == [["with hat", "with glasses"], list(ASKED)]


# ---------------------------------------------------------------- the fit


def test_a_fit_denoises_better_and_by_way_of_the_map(learned):
    """On unseen images: than before, and than with new channels that are read no more."""
    known = learned.segments(DATA, range(100, 116))
    before = learned.state() | learned._first(3)
    deaf = learned.state() | {CHANNELS: 0 * learned.state()[CHANNELS]}
    after, without, first = (
        sum(float(learned.loss(known, state, f"held/{j}")) for j in range(8))
        for state in (learned.state(), deaf, before)
    )
    assert after < without < first
    assert all(v.abs().sum() > 0 for k, v in learned.state().items() if k.startswith(UP))


def test_captions_are_cut_to_a_share_of_their_words():
    draw = torch.Generator().manual_seed(0)
    caption = " ".join(f"w{k}" for k in range(2000))
    kept = [cut(caption, share, draw).split() for share in (0.0, 0.25, 1.0)]
    assert kept[0] == [] and kept[2] == caption.split()
    assert 430 < len(kept[1]) < 570 and kept[1] == [w for w in caption.split() if w in kept[1]]


def test_segments_are_regions_with_words_and_embeddings(latent):
    known = attached(latent).segments(DATA, [3, 5])
    batch = DATA.batch("generator", [3, 5])
    assert known.masks.shape == (2, 3, 8, 8) and known.masks.unique().tolist() in ([1.0], [0, 1])
    assert known.prompts == list(batch.prompts)
    hat = toy.FACTORS.index("hat")
    scorer = toy.PatternScorer()
    for row, caption in enumerate(batch.prompts):
        named = caption.removeprefix("a face").split()  # "with" and what it has, or nothing
        words = " ".join(named if named == ["with", "hat"] else ["hat"] * ("hat" in named))
        assert torch.equal(known.texts[row, hat], scorer.text([words])[0])
    torch.testing.assert_close(known.codes.norm(dim=2), torch.ones(2, 3))


def test_the_prior_gives_embeddings_of_regions_and_identity_those_of_text(latent, learned):
    draw = learned.streams.generator("fit/images")
    chosen = torch.randint(DATA.size("generator"), (learned.images,), generator=draw).tolist()
    known = learned.segments(DATA, chosen)
    told, seen = known.texts.flatten(0, 1), known.codes.flatten(0, 1)
    ones = torch.ones(len(told), 1)
    A = torch.cat([told, ones], 1).double()
    residual = A @ learned.state()[PRIOR].double() - seen.double()
    assert float((A.T @ residual).abs().max()) < 1e-3  # normal equations on the fit's images
    text = toy.PatternScorer().text(["hat"])
    same = attached(latent, text_to_image="identity")
    same.load_state(learned.state())
    assert torch.equal(same.codes(["hat"]), text)
    code = learned.codes(["hat"])
    torch.testing.assert_close(code.norm(dim=1), torch.ones(1))
    raw = torch.cat([text, torch.ones(1, 1)], 1) @ learned.state()[PRIOR]
    torch.testing.assert_close(code, raw / raw.norm())


def test_dropped_at_1_neither_caption_nor_map_is_told(latent, monkeypatch):
    editor = attached(latent, drop=1.0)
    told, asked_for = told_zeros(latent, monkeypatch)
    known = editor.segments(DATA, range(4))
    first = {k: v.requires_grad_() for k, v in editor._first(3).items()}
    with torch.enable_grad():
        editor.loss(known, first, "dropped").backward()
    assert not asked_for and float(first[CHANNELS].grad.abs().max()) == 0
    assert len(told[0]) == 2 and not told[0].any()
    with torch.enable_grad():
        kept = attached(latent, drop=0.0)
        kept.loss(known, first, "dropped").backward()
    words = {word for prompt in known.prompts for word in prompt.split()}
    assert all(asked_for) and {word for prompt in asked_for for word in prompt.split()} <= words
    assert told[1].any()
    assert float(first[CHANNELS].grad.abs().max()) > 0


def test_a_killed_fit_goes_on_where_it_stopped(latent, tmp_path):
    class Killed(Exception):
        pass

    def kill(step: int, count: int) -> None:
        if step == 3:
            raise Killed

    whole = fitted(latent, iterations=5).state()
    first = attached(latent, tmp_path, Fitting(tmp_path, 0.0, kill), iterations=5)
    with torch.enable_grad(), pytest.raises(Killed):
        first.fit(DATA, [])
    before = latent.evaluations.backward
    second = fitted(latent, tmp_path, Fitting(tmp_path, 0.0), iterations=5).state()
    assert latent.evaluations.backward - before <= 3 * 2  # steps, images
    assert second.keys() == whole.keys()
    for name, value in second.items():
        torch.testing.assert_close(value, whole[name])


def test_cells_that_only_sample_otherwise_share_what_is_learned(latent, tmp_path):
    state = fitted(latent, tmp_path).state()
    before = latent.evaluations.backward
    again = fitted(latent, tmp_path, guidance=5.0, fast=True, text_to_image="identity").state()
    assert latent.evaluations.backward == before
    assert all(torch.equal(v, state[k]) for k, v in again.items())
    fitted(latent, tmp_path, drop=0.5)
    assert latent.evaluations.backward > before


def test_data_of_the_same_images_and_other_counterfactuals_share_nothing(latent, tmp_path):
    class Elsewhere(toy.ToyData):
        def counterfactual(self, split, indices, attribute, value):
            found = super().counterfactual(split, indices, attribute, value)
            found[..., :8] = 0
            return found

    first, second = (attached(latent, tmp_path) for _ in range(2))
    with torch.enable_grad():
        first.fit(DATA, [])
        second.fit(Elsewhere(), [])
    assert not torch.equal(first.state()[PRIOR], second.state()[PRIOR])


def test_no_text_depends_on_those_that_are_read_with_it(latent, learned):
    """A text tower that is moved by how much the longest of its texts pads the others."""

    class Padding(toy.PatternScorer):
        def text(self, captions):
            longest = max(len(c.split()) for c in captions)
            return F.normalize(super().text(captions) + 0.1 * longest, dim=1)

    editor = attached(latent)
    editor.parts = {"scorer": Padding()}
    editor.load_state(learned.state())
    alone, together = (editor.segments(DATA, rows).texts for rows in ([4], range(8)))
    assert torch.equal(alone[0], together[4])
    assert torch.equal(editor.codes(["hat"])[0], editor.codes(["hat", "hat with glasses"])[0])


# ---------------------------------------------------------------- refusals


def test_what_does_not_go_together_is_refused(latent, learned):
    with pytest.raises(BadInput, match="a batch of 8 is more than the 4 images"):
        SpaText(images=4)
    for deaf in ({"local_guidance": 0.0}, {"fast": True}, {"iterations": 0}, {"drop": 1.0}):
        why = f"the map, which does nothing where {next(iter(deaf))}="
        with pytest.raises(BadInput, match=why):
            SpaText(guidance=0.0, **deaf)
        SpaText(guidance=1.0, **deaf)
    batch, edit = asked()
    with pytest.raises(BadInput, match="call fit, or load_state"):
        attached(latent).edit(batch, edit, STRENGTHS)
    with pytest.raises(BadInput, match=r"no masks.*give_masks=true"):
        learned.edit(batch, Edit("hat+", None, 1, None, ASKED), STRENGTHS)
    with pytest.raises(BadInput, match="no captions"):
        learned.edit(batch, Edit("hat+", masks=edit.masks), STRENGTHS)


@pytest.mark.parametrize(
    ("model", "why"), [("faces_ddpm", "text"), ("faces_mmdit", "UNetDiffusion"), ("faces_gan", "")]
)
def test_models_without_text_or_a_first_convolution_are_refused(model, why):
    method, cls = option("method", "spatext"), option("model", model).cls
    asks = toy.Asks(verb="edit", gives=tuple(Capability))
    reason = Parts(method.cls, method.config, cls, DATA, asks).misfit()
    assert reason is not None and why in reason
    home = option("model", "faces_ldm").cls
    assert Parts(method.cls, method.config, home, DATA, asks).misfit() is None
