"""P+: each layer reads a prompt of its own, and its vector is learned."""

from dataclasses import replace

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import SUBJECT, Space
from methods.personalisation.layers import cross_layers
from methods.personalisation.p_plus import ExtendedTextualInversion
from methods.personalisation.textual_inversion import TextualInversion

REFERENCES = toy.ToyData().batch("test", [0, 1])
PROMPT = f"{SUBJECT} hat"


def attached(model, cache=None, **settings):
    editor = ExtendedTextualInversion(**{"iterations": 3, **settings})
    editor.attach(model, Streams(0), cache or Cache(None))
    return editor


def drawn(editor, words):
    """Return an image of one prompt with these words."""
    condition, layers = editor.told((PROMPT,), {"words": words})
    model = editor.model
    x = model.prior(Streams(0), ("a",)).parts[Space.NOISE]
    terms = guided(condition, model.condition(None, 1), 3.0)
    return generate(model, x, terms, interventions=layers)


def test_one_vector_in_all_layers_is_textual_inversion(latent):
    editor = attached(latent)
    words = editor.start(REFERENCES)["words"].detach()
    model, x = latent, latent.prior(Streams(0), ("a",)).parts[Space.NOISE]
    told = latent.condition_with_words((PROMPT,), {SUBJECT: words[0]})
    plain = generate(model, x, guided(told, model.condition(None, 1), 3.0))
    assert torch.allclose(drawn(editor, words), plain, atol=1e-5)


@pytest.mark.slow
def test_every_layers_vector_is_read_and_learned(latent):
    editor = attached(latent)
    start = editor.start(REFERENCES)["words"].detach()
    assert len(start) == len(cross_layers(latent)) > 2
    first = drawn(editor, start)
    for k in range(len(start)):
        other = start.clone()
        other[k] = -other[k]
        assert float((drawn(editor, other) - first).abs().max()) > 1e-4, k
    moved = (editor.learn(REFERENCES)["words"] - start).abs().amax(1)
    assert bool((moved > 1e-3).all())
    assert len(moved.unique()) > 1  # each on its own


def test_evaluations_are_counted_forward_and_backward(latent):
    editor = attached(latent, iterations=4)
    counts = replace(latent.evaluations)
    editor.learn(REFERENCES)
    assert latent.evaluations.forward - counts.forward == 4 * len(REFERENCES)
    assert latent.evaluations.backward - counts.backward == 4 * len(REFERENCES)


def test_no_other_methods_word_is_taken_for_its_own(latent, tmp_path):
    other, own = TextualInversion(iterations=3), attached(latent, Cache(tmp_path))
    other.attach(latent, Streams(0), Cache(tmp_path))
    assert other.learn(REFERENCES).keys() == {"word"}
    assert own.learn(REFERENCES).keys() == {"words"}


@pytest.mark.slow
def test_the_loss_falls(latent):
    z0, captions = latent.encode(REFERENCES.images), (SUBJECT, SUBJECT)

    def loss(n):
        editor = attached(latent, iterations=n)
        learned = editor.learn(REFERENCES)
        draws = [editor.loss(learned, z0, captions, REFERENCES.ids, k) for k in range(1000, 1040)]
        return float(torch.stack(draws).mean().detach())

    assert loss(60) < loss(1)
