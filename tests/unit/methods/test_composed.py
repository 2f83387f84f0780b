"""Composable diffusion: sums of scores."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.errors import BadInput
from latentbench.streams import Streams
from latentbench.types import Concept
from methods.generation.composed import ComposedDiffusion, drawn
from methods.generation.plain import PlainSampling

IDS, WORDS = ("a", "b"), ("a face with hat", "smile")


def attached(editor, model):
    editor.attach(model, Streams(0), Cache(None))
    return editor


def test_one_concept_is_classifier_free_guidance(latent):
    found = attached(ComposedDiffusion(guidance=2.0), latent).compose(IDS, [Concept(WORDS)])
    expected = attached(PlainSampling(guidance=2.0), latent).generate(IDS, WORDS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_concept_and_its_negation_cancel(latent):
    editor = attached(ComposedDiffusion(guidance=2.0), latent)
    both = editor.compose(IDS, [Concept(WORDS), Concept(("hat",) * 2), Concept(("hat",) * 2, -1.0)])
    torch.testing.assert_close(both, editor.compose(IDS, [Concept(WORDS)]), rtol=1e-3, atol=1e-3)


def test_all_places_together_are_no_region(latent):
    editor = attached(ComposedDiffusion(guidance=2.0), latent)
    left = torch.zeros(2, 16, 16)
    left[:, :, :8] = 1
    halves = [Concept(WORDS, 1.0, left), Concept(WORDS, 1.0, 1 - left)]
    expected = editor.compose(IDS, [Concept(WORDS)])
    torch.testing.assert_close(editor.compose(IDS, halves), expected, rtol=1e-3, atol=1e-3)
    other = editor.compose(IDS, [Concept(WORDS, 1.0, left)])
    assert float((other - expected).abs().amax()) > 1e-2


def test_all_concepts_share_one_network_call_per_step(latent):
    editor = attached(ComposedDiffusion(steps=3), latent)
    before = latent.evaluations.forward
    editor.compose(IDS, [Concept(WORDS), Concept(("hat",) * 2)])
    assert latent.evaluations.forward - before == 3 * 2 * 3  # steps x images x (null + two)


def test_the_part_of_a_mixture_is_drawn_for_each_image():
    words = ("hat", "glasses", "smile")
    ids = [str(k) for k in range(300)]
    found = drawn([Concept((word,) * 300) for word in words], Streams(0), ids).prompts
    assert all(70 < found.count(word) < 130 for word in words)
    some = drawn([Concept((word,) * 2) for word in words], Streams(0), ids[7:9]).prompts
    assert some == found[7:9]


def test_parts_of_a_mixture_have_one_weight_and_no_region(latent):
    editor, hat = attached(ComposedDiffusion(), latent), Concept(("hat",) * 2)
    for other in (Concept(WORDS, 2.0), Concept(WORDS, 1.0, torch.ones(2, 16, 16))):
        with pytest.raises(BadInput, match="parts of equal weight"):
            editor.mixture(IDS, [], [hat, other])
