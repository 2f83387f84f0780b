"""Spatial-temporal attention: concepts in their places."""

from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.models.transformer_flow import TransformerFlow
from latentbench.sampling.loop import generate
from latentbench.streams import Streams
from latentbench.types import Concept, Space
from methods.generation.composed import ComposedDiffusion
from methods.generation.spatial_temporal_attention import (
    Local,
    RegionalAttention,
    SpatialTemporalAttention,
)
from methods.inversion.null_text import TOKENS

IDS = ("a", "b")
ASKED = [Concept(("a face", "a smile face")), Concept(("with hat", "glasses"))]
WHOLE = Concept(("a face with hat", "a smile face glasses"))


def attached(model, **settings) -> SpatialTemporalAttention:
    editor = SpatialTemporalAttention(**{"steps": 2} | settings)
    editor.attach(model, Streams(0), Cache(None), {"scorer": toy.PatternScorer()})
    return editor


def plain(model, concepts):
    editor = ComposedDiffusion(steps=2)
    editor.attach(model, Streams(0), Cache(None))
    return editor.compose(IDS, concepts)


def test_without_weights_it_samples_the_joined_prompt(latent):
    found = attached(latent, weight=0.0, epochs=0).compose(IDS, ASKED)
    torch.testing.assert_close(found, plain(latent, [WHOLE]), rtol=1e-3, atol=1e-4)
    mixed = attached(latent, epochs=0).compose(IDS, ASKED)
    assert float((mixed - found).abs().max()) > 1e-3


def test_weights_of_concepts_count_as_their_mean(latent):
    asked = [replace(c, weight=w) for c, w in zip(ASKED, (0.5, 1.0), strict=True)]
    found = attached(latent, weight=0.0, epochs=0).compose(IDS, asked)
    expected = plain(latent, [replace(WHOLE, weight=0.75)])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert float((found - plain(latent, [WHOLE])).abs().max()) > 1e-3


def test_a_concept_of_all_weight_everywhere_is_all_that_is_read(latent):
    editor, x = attached(latent), torch.randn(2, *latent.latent_shape)
    local = [
        Local(latent.condition(c.prompts, 2).tensors[TOKENS], torch.ones(2, 1, 8, 8), c.prompts)
        for c in ASKED
    ]
    weights = torch.tensor([1.0, 0.0])[None, :, None].expand(2, 2, 2)
    one, other = (
        generate(latent, x, terms, grid=latent.grid(2), interventions=changes)
        for terms, changes in (
            (editor.terms([WHOLE], 2), [RegionalAttention(local, weights)]),
            (editor.terms(ASKED[:1], 2), []),
        )
    )
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_outside_of_its_place_a_concept_changes_no_layer_s_output(latent):
    place = torch.zeros(2, 1, 8, 8)
    place[..., :4] = 1
    context = latent.condition(ASKED[1].prompts, 2).tensors[TOKENS]
    seen: list[torch.Tensor] = []

    class Listening(RegionalAttention):
        def attention(self, step, call):
            out = super().attention(step, call)
            if out is not None and not seen:
                gap = (out - call.attend())[2:].abs().amax((1, 3))  # the conditional rows
                seen.append(gap.unflatten(1, (round(gap.shape[1] ** 0.5), -1)))
            return out

    listening = Listening([Local(context, place, ASKED[1].prompts)], torch.ones(2, 1, 2))
    x, terms = torch.randn(2, *latent.latent_shape), attached(latent).terms([WHOLE], 2)
    generate(latent, x, terms, grid=latent.grid(2), stop=1, interventions=[listening])
    left, right = seen[0].chunk(2, -1)
    assert float(right.max()) < 1e-5 < float(left.min())


def test_a_disc_lies_where_the_words_are_read(latent):
    maps = torch.zeros(1, 16, 12)
    maps[0, 5, 3] = 1  # row 1, column 1 of 4: middle at 3/8
    tokens = torch.zeros(1, 12)
    tokens[0, 3] = 1
    disc = attached(latent, radius=0.1)._disc(maps, tokens)[0, 0]
    assert disc.nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_learned_weights_fit_better_than_the_first(latent):
    editor = attached(latent)
    x = latent.prior(Streams(0), IDS).parts[Space.NOISE]
    local = editor.locals(x, ASKED, editor.terms([WHOLE], 2))
    losses = []
    for epochs in (1, 3):
        images = attached(latent, epochs=epochs, learning_rate=0.5).compose(IDS, ASKED)
        losses.append(editor.losses(images, WHOLE.prompts, local))
    assert bool((losses[1] <= losses[0] + 1e-5).all())
    assert float((losses[0] - losses[1]).max()) > 1e-3


def test_evaluations(latent):
    """The plain chain that finds places, and the epochs, all but the last one with a gradient."""
    before = replace(latent.evaluations)
    attached(latent, epochs=3).compose(IDS, ASKED)
    chain = 2 * 2 * 2  # branches, images, steps
    assert latent.evaluations.forward - before.forward == 4 * chain
    assert latent.evaluations.backward - before.backward == 2 * chain
    before = replace(latent.evaluations)
    regions = [replace(c, region=torch.ones(2, 16, 16)) for c in ASKED]
    attached(latent, epochs=0).compose(IDS, regions)
    assert latent.evaluations.forward - before.forward == chain


def test_joint_attention_has_no_layer_for_it():
    spaces, _ = SpatialTemporalAttention.required(["compose"], {})
    assert Space.ATTENTION in spaces - TransformerFlow.spaces


def test_negated_concepts_stay_terms_of_their_own(latent):
    negated = Concept(("hat",) * 2, -0.5)
    found = attached(latent, weight=0.0, epochs=0).compose(IDS, [*ASKED, negated])
    torch.testing.assert_close(found, plain(latent, [WHOLE, negated]), rtol=1e-3, atol=1e-4)
    with pytest.raises(BadInput, match="no concept"):
        attached(latent).compose(IDS, [negated])
