"""Concept distillation: masks, rectangles, what is learned, and what is repainted."""

import pytest
import torch
from small_flows import noisiest, small_flow

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.blending import KeepOutside, latent_mask
from latentbench.sampling.loop import denoise, generate, guided, noise_to_level
from latentbench.streams import Streams
from latentbench.types import Edit
from methods.editing import concept_distillation
from methods.editing.concept_distillation import (
    ConceptDistillation,
    ConceptMaps,
    in_latents,
    parted,
    rectangle,
)
from methods.editing.prompt_to_prompt import maps_of

DATA = toy.ToyData()
ADD, DROP = (
    Edit("hat+", "hat", 1, words=("bare", "hat")),
    Edit("hat-", "hat", -1, words=("hat", "bare")),
)
SMALL = {"images": 4, "batch": 4, "iterations": 8, "learning_rate": 0.01, "rank": 2, "draws": 1}


def attached(model, **settings):
    editor = ConceptDistillation(**{**SMALL, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def fitted(model, **settings):
    editor = attached(model, **settings)
    with torch.enable_grad():
        editor.fit(DATA, [ADD, DROP])
    return editor


@pytest.fixture(scope="module")
def learned(latent):
    return fitted(latent)


def changes(editor, edit):
    own = {k.removeprefix(f"{edit}/"): v for k, v in editor.state().items() if k.startswith(edit)}
    return {k: v for k, v in own.items() if k != "words"}


def asked(edit, n=2, masks=None):
    batch = DATA.batch("test", range(n))
    return batch, Edit(edit.name, edit.attribute, edit.sign, masks=masks)


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("entries", [2**27, 2 * 2 * 3 * 5], ids=["at once", "in parts"])
def test_a_map_is_the_mean_over_layers_and_heads_of_the_tokens_that_count(monkeypatch, entries):
    """Two images, two heads; of three tokens of an image and its two text tokens, some count."""
    monkeypatch.setattr(concept_distillation, "ENTRIES", entries)
    draw = torch.Generator().manual_seed(0)
    key = torch.randn(2, 2, 5, 4, generator=draw)
    coarse, fine = (torch.randn(2, 2, n, 4, generator=draw) for n in (4, 16))
    tokens = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    read = ConceptMaps(tokens)
    found = {len(q[0, 0]): [read.kept(q, key, 0.5, 3)] for q in (coarse, fine)}
    whole = {len(q[0, 0]): maps_of(q, key, 0.5)[..., 3:] for q in (coarse, fine)}
    expected = torch.zeros(2, 4, 4)
    for row in range(4):
        for column in range(4):
            for count, place in ((4, row // 2 * 2 + column // 2), (16, row * 4 + column)):
                for k, counts in enumerate(tokens.bool()):
                    expected[k, row, column] += whole[count][k, :, place][:, counts].mean() / 2
    torch.testing.assert_close(in_latents(found, 4), expected)


def test_layers_of_any_size_take_part(latent, monkeypatch):
    """Latents of 36 x 36, of which the finest layers have more places than guidance reads."""
    z0, seen = torch.randn(1, 4, 36, 36), []
    monkeypatch.setattr(latent, "encode", lambda images: z0)

    def watched(*args, **told):
        seen.append(told["interventions"][0].found)
        return denoise(*args, **told)

    monkeypatch.setattr(concept_distillation, "denoise", watched)
    maps = attached(latent, steps=2).maps(DATA.batch("test", [0]), ("hat",))
    assert maps.shape == (1, 36, 36) and set(seen[0]) == {18**2, 36**2}
    for count, layers in seen[0].items():
        assert all(one.shape == (1, count) for one in layers)  # and no token or head apart


def test_a_mask_is_the_brighter_part_without_lone_cells():
    draw = torch.Generator().manual_seed(0)
    values = 0.02 * torch.randn(16, 16, generator=draw)
    values[4:9, 5:12] += 1
    values[12, 3] += 1
    inside = parted(values)
    assert inside[5:8, 6:11].all() and not inside[12, 3]
    assert int(inside.sum()) <= 35
    assert not parted(torch.ones(4, 4)).any()


def test_masks_do_not_depend_on_neighbours_and_are_made_once(latent, tmp_path):
    editor = ConceptDistillation(**SMALL)
    editor.attach(latent, Streams(0), Cache(tmp_path))
    batch, words = DATA.batch("test", range(3)), ("hat",) * 3
    together, before = editor.maps(batch, words), latent.evaluations.forward
    alone = editor.maps(DATA.batch("test", [1]), words[:1])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-6)
    assert latent.evaluations.forward - before == 4  # of five levels, the noisiest is skipped
    editor.masks(batch, words)
    before = latent.evaluations.forward
    editor.masks(batch, words)
    assert latent.evaluations.forward == before


# ---------------------------------------------------------------- what is learned


def test_rectangles_are_background_of_the_asked_size():
    inside, draw = torch.zeros(64, 64, dtype=torch.bool), torch.Generator().manual_seed(0)
    inside[20:40, 20:40] = True
    for _ in range(20):
        found = rectangle(inside, draw)
        rows, columns = (found.any(d).nonzero() for d in (1, 0))
        height, width = (int(v.max() - v.min()) for v in (rows, columns))
        assert not (found & inside).any()
        assert min(height, width) > 10 and 256 <= height * width <= 1024
        assert int(found.sum()) >= 2 / 3 * height * width


def test_where_no_rectangle_fits_all_background_counts():
    inside = torch.ones(16, 16, dtype=torch.bool)
    inside[3] = False
    draw = torch.Generator().manual_seed(0)
    assert torch.equal(rectangle(inside, draw), ~inside)
    assert not rectangle(torch.ones(4, 4, dtype=torch.bool), draw).any()


def test_the_loss_is_that_of_the_prediction_where_it_counts(latent):
    editor = fitted(latent, iterations=0)
    own = changes(editor, "hat+")
    z0, told = latent.encode(DATA.batch("test", range(2)).images), latent.condition(("hat",) * 2, 2)
    counted = torch.zeros(2, *z0.shape[-2:], dtype=torch.bool)
    counted[:, :2, :3] = True
    found = editor.losses(own, z0, told, counted, "draw")
    streams, grid = Streams(0), latent.grid()
    level = int(torch.randint(grid.n, (), generator=streams.generator("draw", "level")))
    eps = streams.normal("draw/noise", ["0", "1"], z0.shape[1:])
    x = noise_to_level(grid, z0, eps, level)
    alpha, sigma = grid.levels(level, z0)
    v = latent.forward(x, grid.timesteps[level].expand(2), told)
    expected = (v - (alpha * eps - sigma * z0))[:, :, :2, :3].square().flatten(1).mean(1)
    torch.testing.assert_close(found, expected)


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    return small_flow(tmp_path_factory.mktemp("sd3"))


def test_a_flow_learns_at_its_noisiest_level(flow):
    """There x_t is eps, of which any network's eps is right, and its velocity is not."""
    editor = attached(flow)
    own = {name: value.requires_grad_() for name, value in editor._first().items()}
    z0, counted = torch.randn(1, *flow.latent_shape), torch.ones(1, 8, 8, dtype=torch.bool)
    with torch.enable_grad():
        (loss,) = editor.losses(own, z0, flow.condition(("hat",), 1), counted, noisiest(editor))
        loss.backward()
    assert float(flow.grid().alpha[0]) == 0 and float(loss) > 0.1
    assert max(float(v.grad.abs().max()) for k, v in own.items() if k.startswith("up/")) > 1e-5


def test_it_learns_what_the_background_is(latent, learned):
    """On unseen noises, under its prompt, outside of the concept."""
    z0 = latent.encode(DATA.batch("generator", range(8)).images)
    counted = torch.ones(8, *z0.shape[-2:], dtype=torch.bool)
    told, losses = latent.condition(("background",) * 8, 8), []
    for editor in (fitted(latent, iterations=0), learned):
        own = changes(editor, "hat-")
        with torch.no_grad():
            draws = [editor.losses(own, z0, told, counted, f"unseen/{k}") for k in range(6)]
        losses.append(float(torch.stack(draws).mean()))
    assert losses[1] < 0.95 * losses[0], losses


def test_no_map_is_made_that_is_not_read(latent, monkeypatch):
    """None where the mask is given, and none for a fit without rectangles."""
    monkeypatch.setattr(ConceptDistillation, "maps", lambda *_: pytest.fail("maps are made"))
    editor = fitted(latent, iterations=1, whole=1.0, mask="given")
    batch, wanted = asked(ADD, masks=torch.ones(2, 16, 16))
    editor.edit(batch, wanted, torch.ones(1))


def test_both_edits_of_a_concept_share_what_is_learned(learned):
    adds, drops = changes(learned, "hat+"), changes(learned, "hat-")
    assert adds.keys() == drops.keys()
    assert all(torch.equal(adds[name], drops[name]) for name in adds)


# ---------------------------------------------------------------- the edit


@pytest.mark.parametrize("edit", [ADD, DROP], ids=["adds", "takes away"])
def test_the_place_is_repainted_under_the_prompt_of_the_edits_side(latent, edit):
    masks = torch.zeros(2, 16, 16)
    masks[:, :, :8] = 1
    batch, wanted = asked(edit, masks=masks)
    editor = fitted(latent, iterations=0, mask="given", guidance=2.0)
    found = editor.edit(batch, wanted, torch.tensor([0.0, 0.6, 1.0]))
    z0 = latent.encode(batch.images)
    noise = Streams(0).normal("concept_distillation", batch.ids, z0.shape[1:])
    kept = [KeepOutside(z0, noise, latent_mask(masks, z0))]
    sides = [latent.condition((p,) * 2, 2) for p in ("hat", "background")]
    terms = guided(*(sides if edit.sign > 0 else sides[::-1]), 2.0)
    for k, start, x in ((1, 2, noise_to_level(latent.grid(), z0, noise, 2)), (2, 0, noise)):
        own = latent.decode(generate(latent, x, terms, start=start, interventions=kept))
        torch.testing.assert_close(found[:, k], own)
    torch.testing.assert_close(found[:, 0], latent.decode(z0))


def test_what_is_learned_changes_the_edit(latent, learned):
    batch, wanted = asked(DROP)
    strengths = torch.tensor([1.0])
    plain_ones = fitted(latent, iterations=0).edit(batch, wanted, strengths)
    assert float((learned.edit(batch, wanted, strengths) - plain_ones).abs().max()) > 1e-3


# ---------------------------------------------------------------- refusals


def test_what_cannot_be_learned_or_asked_for_is_refused(latent, learned):
    with pytest.raises(BadInput, match="has no words for before and after"):
        attached(latent).fit(DATA, [Edit("hat+", "hat")])
    with pytest.raises(BadInput, match=r"announces no edits.*benchmark=attribute_editing"):
        attached(latent, mask="given").fit(DATA, [])
    with pytest.raises(BadInput, match="captions of the split 'generator' name 'crown'"):
        attached(latent).fit(DATA, [Edit("c", "hat", words=("bare", "crown"))])
    with pytest.raises(BadInput, match=r"batch of 8 is more than the 4 images"):
        ConceptDistillation(images=4, batch=8)
    batch = DATA.batch("test", range(2))
    with pytest.raises(BadInput, match="'smile-'"):
        learned.edit(batch, Edit("smile-", "smile", -1), torch.ones(1))
