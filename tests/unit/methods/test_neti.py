"""NeTI: the word depends on time and layer, and what is drawn on how much of it counts."""

import pytest
import torch

from latentbench.cache import Cache
from latentbench.conformance import toy
from latentbench.errors import BadInput
from latentbench.sampling.loop import generate, guided
from latentbench.streams import Streams
from latentbench.types import SUBJECT, Space
from methods.personalisation.layers import cross_layers
from methods.personalisation.learned_subject import place_of_subject
from methods.personalisation.neti import (
    NeuralTextualInversion,
    SpaceTimePrompts,
    encoded,
    mapped,
)

REFERENCES = toy.ToyData().batch("test", [0, 1])


def attached(model, **settings):
    editor = NeuralTextualInversion(**{"iterations": 3, **settings})
    editor.attach(model, Streams(0), Cache(None))
    return editor


def drawn(editor, learned, prompt=f"{SUBJECT} hat"):
    condition, layers = editor.told((prompt,), learned)
    model = editor.model
    x = model.prior(Streams(0), ("a",)).parts[Space.NOISE]
    terms = guided(condition, model.condition(None, 1), 3.0)
    return generate(model, x, terms, interventions=layers)


def started(editor):
    return {name: value.detach() for name, value in editor.start(REFERENCES).items()}


def test_the_code_of_an_anchor_is_nearest_to_itself():
    codes = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    codes = codes * torch.tensor([0.03, 4.0])
    places = [(t, layer) for t in (0.0, 200.0, 400.0) for layer in range(4)]
    rows = torch.stack([encoded(codes, *place) for place in places])
    assert torch.allclose(rows.norm(dim=1), torch.ones(12))
    others = (rows @ rows.T).fill_diagonal_(-1)
    assert float(others.max()) < 0.9
    near = torch.stack([encoded(codes, t + 2.0, layer) for t, layer in places])
    assert (near @ rows.T).argmax(1).tolist() == list(range(12))


def test_words_differ_by_time_and_layer_and_have_the_norm_of_the_vocabulary(latent):
    learned, units = started(attached(latent)), torch.ones(64)
    norm = latent.vocabulary().norm(dim=1).mean()
    found = [mapped(learned, t, k, units, norm) for t in (0.0, 500.0) for k in (0, 1)]
    assert all(float(o.norm()) == pytest.approx(float(norm), rel=1e-5) for o in found)
    for a in range(4):
        for b in range(a):
            assert float((found[a] - found[b]).abs().max()) > 1e-3


def test_the_bypass_moves_values_at_the_subjects_place_alone(latent):
    editor = attached(latent)
    prompts = (f"a {SUBJECT} hat", "a hat")
    spread = SpaceTimePrompts(latent, prompts, started(editor), torch.ones(64), 0.3)
    for keys, values in spread._at(400.0):
        change = (values - keys).norm(dim=-1)
        place = place_of_subject(latent, prompts[0])
        share = change[0, place] / keys[0, place].norm()
        assert float(share) == pytest.approx(0.3, rel=1e-4)
        assert float(change.sum()) == pytest.approx(float(change[0, place]), rel=1e-4)


def test_the_subjects_place_is_where_the_prompt_with_another_word_begins_to_differ(latent):
    for prompt in (SUBJECT, f"a {SUBJECT} hat", f"hat smile {SUBJECT}"):
        v = latent.vocabulary()[0]
        one, two = (
            latent.condition_with_words((prompt,), {SUBJECT: word}).tensors["encoder_hidden_states"]
            for word in (v, -v)
        )
        first = int(((one - two).abs().amax(-1)[0] > 1e-6).nonzero()[0])
        assert place_of_subject(latent, prompt) == first
    assert place_of_subject(latent, "a hat") == -1
    with pytest.raises(BadInput, match="names the subject 2 times"):
        place_of_subject(latent, f"{SUBJECT} {SUBJECT}")


def test_a_prompt_without_the_subject_is_drawn_as_the_model_draws_it(latent):
    editor = attached(latent)
    x = latent.prior(Streams(0), ("a",)).parts[Space.NOISE]
    told = latent.condition(("a hat",), 1)
    plain = generate(latent, x, guided(told, latent.condition(None, 1), 3.0))
    assert torch.allclose(drawn(editor, started(editor), "a hat"), plain, atol=1e-5)


@pytest.mark.slow
def test_bypass_truncation_and_time_change_what_is_drawn(latent):
    learned = started(attached(latent))
    whole = drawn(attached(latent), learned)
    for settings in ({"bypass": 0.0}, {"truncation": 8}):
        other = drawn(attached(latent, **settings), learned)
        assert float((other - whole).abs().max()) > 1e-4, settings
    still = {**learned, "W": learned["W"] * torch.tensor([0.0, 1.0])}
    assert float((drawn(attached(latent), still) - whole).abs().max()) > 1e-4


def test_truncation_decides_nothing_that_is_learned(latent):
    one, two = (attached(latent, truncation=k).learn(REFERENCES) for k in (None, 8))
    assert one.keys() == two.keys() and len(cross_layers(latent)) * 5 == len(one["A"])
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(BadInput, match="truncation must be at most width, 64 units, got 65"):
        NeuralTextualInversion(truncation=65)


@pytest.mark.slow
def test_the_loss_falls(latent):
    z0, captions = latent.encode(REFERENCES.images), (SUBJECT, SUBJECT)

    def loss(n):
        editor = attached(latent, iterations=n, nested=0.0)
        learned = editor.learn(REFERENCES)
        draws = [editor.loss(learned, z0, captions, REFERENCES.ids, k) for k in range(1000, 1040)]
        return float(torch.stack(draws).mean().detach())

    assert loss(60) < loss(1)
