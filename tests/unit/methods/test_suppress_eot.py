"""SuppressEOT: content suppression in the prompt's embedding."""

import math
from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import denoise, plain
from latentbench.streams import Streams
from latentbench.types import Batch, Edit
from methods.inversion.null_text import TOKENS, with_tokens
from methods.inversion.suppress_eot import MeanMaps, SuppressEOT

SOURCES, TARGETS = ("a face with hat", "a face with glasses smile"), ("a face", "a face with smile")
FEW = {"steps": 5, "iterations": 0, "updates": 1}


def attached(model, **settings):
    editor = SuppressEOT(**FEW | settings)
    editor.attach(model, Streams(0), Cache(None))
    return editor


def batch_of(model) -> Batch:
    return Batch(("0", "1"), toy.ToyData(model.image_size).batch("test", [0, 1]).images, SOURCES)


def test_tokens_of_each_prompt(latent):
    places = attached(latent).places(SOURCES, TARGETS)
    assert places.dropped.nonzero().tolist() == [[0, 3], [0, 4], [1, 4]]  # BOS a face with WORD ...
    assert places.kept.nonzero().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2], [1, 3], [1, 5]]
    assert places.padding.int().argmax(1).tolist() == [5, 6]
    assert bool(places.padding[:, 6:].all())
    named = attached(latent, words=["Smile", "hat"]).places(SOURCES, SOURCES)
    assert named.dropped.nonzero().tolist() == [[0, 4], [1, 5]]


def test_singular_values_decay(latent):
    c, chi = torch.randn(1, 12, 32), torch.zeros(1, 12, dtype=torch.bool)
    chi[:, 4:] = True
    found = attached(latent, alpha=0.3).regularised(c, chi)
    assert torch.equal(found[:, :4], c[:, :4])
    s, made = (torch.linalg.svdvals(v[0, 4:].double()) for v in (c, found))
    torch.testing.assert_close(made, (s * torch.exp(-0.3 * s)).sort(descending=True)[0])
    assert torch.equal(attached(latent, alpha=0.0).regularised(c, chi), c)
    many = attached(latent, alpha=1e4).regularised(c, chi)
    assert float(many[:, 4:].abs().max()) < 1e-4
    relative = attached(latent, alpha=1.0, relative=True).regularised(c, chi)
    top = torch.linalg.svdvals(relative[0, 4:].double()).max()
    assert float(top) == pytest.approx(float(s[0]) / math.e, rel=1e-3)  # s exp(-s / s_1)


def test_strength_0_is_the_reconstruction_and_1_another_image(latent):
    editor, batch, edit = attached(latent), batch_of(latent), Edit("x", target_prompts=TARGETS)
    found = editor.edit(batch, edit, torch.tensor([0.0, 1.0]))
    expected = editor.decode(editor.invert(batch))
    torch.testing.assert_close(found[:, 0], expected, rtol=1e-3, atol=1e-3)
    assert float((found[:, 1] - expected).abs().amax()) > 1e-2


@pytest.mark.slow
def test_without_a_start_nothing_changes(latent):
    batch, edit = batch_of(latent), Edit("x", target_prompts=TARGETS)
    moved = {}
    for start in (0.0, 1.0):
        editor = attached(latent, start=start, updates=0)
        made = editor.edit(batch, edit, torch.ones(1))[:, 0]
        moved[start] = float((made - editor.decode(editor.invert(batch))).abs().mean())
    assert moved[1.0] < 1e-5 < moved[0.0]


def test_gradient_steps_push_unwanted_words_away_and_hold_the_others(latent):
    editor, x = attached(latent, updates=5, rate=20.0), torch.randn(2, *latent.latent_shape)
    told, places = latent.condition(SOURCES, 2), editor.places(SOURCES, TARGETS)
    c = told.tensors[TOKENS]
    start = with_tokens(told, editor.regularised(c, places.dropped | places.padding))

    def maps(condition):
        found = MeanMaps()
        denoise(latent, x, plain(condition), grid=latent.grid(5), level=1, interventions=[found])
        return found.maps()

    goal = maps(told)
    for one in (editor, attached(latent, updates=5, rate=20.0, keep=0.0)):
        end = one._pushed(x, 1, start, goal, places, torch.full((2,), one.rate))
        before, after = (one.loss(goal, maps(where), places) for where in (start, end))
        assert bool((after < before).all())


def test_a_row_has_its_own_loss(latent):
    editor, x = attached(latent), torch.randn(2, *latent.latent_shape)
    found = MeanMaps()
    told = plain(latent.condition(SOURCES, 2))
    denoise(latent, x, told, grid=latent.grid(5), level=1, interventions=[found])
    goal, places = found.maps(), editor.places(SOURCES, TARGETS)
    assert float(editor.loss(goal, goal, places).abs().max()) < 1e-5
    other = goal[0].clone()
    other[1, 0] += 1  # one place of the second image's maps
    losses = editor.loss(goal, (other, goal[1]), places)
    assert float(losses[0].abs()) < 1e-5 < float(losses[1].abs())
    none = replace(places, kept=torch.zeros_like(places.kept))
    assert float(editor.loss(goal, (other, goal[1]), none)[1]) < 0  # further apart is better


def test_evaluations(latent):
    """The source runs while its maps are needed, the target's shared steps once per image."""
    b, s, n, first, last, k = 2, 3, 5, 1, 2, 4
    editor = attached(latent, updates=k)
    batch, edit = batch_of(latent), Edit("x", target_prompts=TARGETS)
    latent_code = editor.invert(batch)
    editor.invert = lambda batch: latent_code
    before = replace(latent.evaluations)
    editor.edit(batch, edit, torch.tensor([0.0, 0.5, 1.0]))
    rows = 2 * b * last + 2 * b * s * (n - first) + k * b * s * (last - first)
    assert latent.evaluations.forward - before.forward == rows
    assert latent.evaluations.backward - before.backward == k * b * s * (last - first)


def test_nothing_to_take_out_is_refused(latent):
    with pytest.raises(BadInput, match="nothing to take out of 'a face'"):
        attached(latent).places(("a face",), ("a face with hat",))
    with pytest.raises(BadInput, match=r"has none of method.words=\['hat'\]"):
        attached(latent, words=["hat"]).places(("a face",), ("a face",))
